"""One troupe-replay-server on a temporary directory, and the load on it."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
CONFIG = HERE / "replay.txtpb"
PATIENCE_SECONDS = 120
POLL_SECONDS = 0.0005
STRIDE_BYTES = {"half_cheetah": 112, "humanoid": 1480, "pixels": 7096}


def run_load(bin_dir, **flags):
    """What troupe-replay-load says.  `noise`: the share of the machine that others had."""
    command = [str(bin_dir / "troupe-replay-load")]
    command += [f"--{name}={json.dumps(value) if isinstance(value, bool) else value}"
                for name, value in flags.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          timeout=PATIENCE_SECONDS + flags.get("seconds", 0))
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout)
    result["noise"] = result.get("steal_share", 0) + result.get("others_share", 0)
    wrong = {name: result[name] for name in ("wrong_windows", "wrong_rows", "wrong_replies")
             if result.get(name, 0) != 0}
    if wrong:
        raise RuntimeError(f"{' '.join(command)}: {wrong}")
    return result


class Shard:
    """Used as a context manager: started, and ended with its directory removed."""

    def __init__(self, bin_dir, data_root, layout="half_cheetah", **settings):
        """`settings` are paths of the config, with __ for the dots."""
        self._bin = bin_dir
        self._layout = layout
        self._settings = [f"--set={path.replace('__', '.')}={value}"
                          for path, value in settings.items()]
        self._dir = pathlib.Path(tempfile.mkdtemp(prefix="troupe-bench-", dir=data_root))
        self._process = None
        self._target = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self._dir)

    @property
    def pid(self):
        return self._process.pid

    @property
    def target(self):
        """host:port"""
        return self._target

    def start(self):
        """Returns the seconds from exec to serving, with everything recovered and checked."""
        port_file = self._dir / "port"
        port_file.unlink(missing_ok=True)
        command = ["setpriv", "--pdeathsig", "KILL", "--", str(self._bin / "troupe-replay-server"),
                   f"--config={CONFIG}", "--listen=127.0.0.1:0", f"--port_file={port_file}",
                   f"--data_dir={self._dir / 'data'}", "--log_level=warning", *self._settings]
        with open(self._dir / "log", "ab") as log:
            begin = time.perf_counter()
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        while not port_file.exists():
            if self._process.poll() is not None or time.perf_counter() > begin + PATIENCE_SECONDS:
                raise RuntimeError(f"the shard does not serve:\n{(self._dir / 'log').read_text()}")
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - begin
        self._target = f"127.0.0.1:{port_file.read_text().strip()}"
        subprocess.run([command[4], "--health", f"--listen={self._target}"], check=True)
        return seconds

    def frames(self, mode, codec, frames, **flags):
        """What troupe-frames-load says, with the shard's own CPU."""
        command = [str(self._bin / "troupe-frames-load"), f"--target={self._target}",
                   f"--mode={mode}", f"--codec={codec}", f"--frames={frames}",
                   *(f"--{name}={value}" for name, value in flags.items())]
        before = cpu_seconds(self.pid)
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              timeout=PATIENCE_SECONDS)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
        result = json.loads(done.stdout)
        result["shard_us_per_frame"] = 1e6 * (cpu_seconds(self.pid) - before) / result["frames"]
        return result

    def describe(self):
        """The DescribeReply; its 64-bit numbers are strings, as protobuf has it in JSON."""
        return run_load(self._bin, mode="describe", target=self._target)

    def table(self):
        return self.describe()["tables"][0]

    def kill(self):
        self._process.kill()
        self._process.wait()

    def load(self, mode, **flags):
        return run_load(self._bin, mode=mode, target=self._target, server_pid=self.pid,
                        layout=self._layout, **flags)

    def stored_bytes(self):
        """Of its files, with their headers and indices."""
        return sum(path.stat().st_blocks * 512 for path in (self._dir / "data").rglob("*"))

    def fill(self, rows):
        return self.load("fill", rows=rows)


def memory_bytes(pid):
    """Resident memory: its own and that of mapped files."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        sizes = dict(line.split(":", 1) for line in status)
    return sum(int(sizes[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "RssShmem"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
