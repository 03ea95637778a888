"""A replay shard on this machine, for trials, tests and single-machine use."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence

from troupe.errors import TroupeError

_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.01


def checkout() -> pathlib.Path:
    """Troupe's repository: TROUPE_ROOT, or above the working directory or this file."""
    named = os.environ.get("TROUPE_ROOT")
    starts = [pathlib.Path(named)] if named else [pathlib.Path.cwd(), pathlib.Path(__file__)]
    for start in starts:
        for folder in [start.resolve(), *start.resolve().parents]:
            if (folder / "deploy" / "up").is_file() and (folder / "proto").is_dir():
                return folder
    raise TroupeError("no checkout of Troupe's repository here; TROUPE_ROOT may name it")


def programs(build_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """The folder of the built programs."""
    build = pathlib.Path(build_dir) if build_dir else checkout() / "build" / "release"
    if not (build / "bin" / "troupe-replay-server").is_file():
        raise TroupeError(f"no {build}/bin/troupe-replay-server; deploy/up or ninja builds it")
    return (build / "bin").resolve()


class LocalShard:
    """A troupe-replay-server in a child process, which ends with this one.

    `config` is text of proto/config.proto or the path of such a file.  Use as a context manager, or
    call close.
    """

    def __init__(self, config: str | os.PathLike, data_dir: str | os.PathLike, *,
                 build_dir: str | os.PathLike | None = None,
                 tls_dir: str | os.PathLike | None = None, sets: Sequence[str] = (),
                 listen: str = "127.0.0.1:0"):
        self.data_dir = pathlib.Path(data_dir)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="troupe_shard_")
        folder = pathlib.Path(self._folder.name)
        self._port_file, self._log = folder / "port", folder / "log"
        path = pathlib.Path(config)
        if isinstance(config, str) and ("{" in config or ":" in config):
            path = folder / "config.txtpb"
            path.write_text(config, encoding="utf-8")
        self._command = ["setpriv", "--pdeathsig", "KILL", "--",
                         str(programs(build_dir) / "troupe-replay-server"), f"--config={path}",
                         f"--port_file={self._port_file}", f"--data_dir={self.data_dir}",
                         "--metrics_port=-1", *(f"--set={word}" for word in sets)]
        if tls_dir is not None:
            self._command.append(f"--tls_dir={tls_dir}")
        self._listen = listen
        self._process: subprocess.Popen | None = None
        self.start()

    @property
    def address(self) -> str:
        """host:port, the same after a restart."""
        return self._listen

    def start(self, listen: str | None = None) -> None:
        """Starts it, or starts it again where it was or at `listen`; returns when it serves."""
        self._listen = listen or self._listen
        self._port_file.unlink(missing_ok=True)
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen([*self._command, f"--listen={self._listen}"],
                                             stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not self._port_file.exists() or not self._port_file.read_text().strip():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise TroupeError(f"the shard does not serve: {self.log()[-2000:]}")
            time.sleep(_POLL_SECONDS)
        host = self._listen.rpartition(":")[0]
        self._listen = f"{host}:{self._port_file.read_text().strip()}"

    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int) -> None:
        """Sends a signal; none if it has ended."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """As kill -9: what it has acked is in its data directory."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Lets calls under way finish, and ends."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    def __enter__(self) -> LocalShard:
        return self

    def close(self) -> None:
        """As stop; its log is gone then."""
        self.stop()
        self._folder.cleanup()

    def __exit__(self, *_: object) -> None:
        self.close()
