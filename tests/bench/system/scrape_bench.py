"""How long Prometheus waits for a shard's metrics while the shard is fully loaded: as many appends
and samples as it takes.  At most 10 ms are wanted.

    scrape_bench.py --build_dir build/release [--seconds 10]

Prints lines of bench.jsonl.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "bench" / "system"))

from sampling_bench import machine  # noqa: E402: it lies there

BETWEEN_SCRAPES_SECONDS = 0.1


def read_when_there(path, seconds=30):
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} has not come")
        time.sleep(0.01)
    return path.read_text().strip()


def scrape(port):
    """Seconds, and bytes of the answer."""
    begin = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        size = len(answer.read())
    return time.perf_counter() - begin, size


def scrapes(port, seconds):
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found.append(scrape(port))
        time.sleep(BETWEEN_SCRAPES_SECONDS)
    return [took for took, _ in found], found[-1][1]


def report(case, times):
    times = sorted(times)
    for name, value in (("median", statistics.median(times)),
                        ("99 %", times[int(0.99 * (len(times) - 1))])):
        print(json.dumps({"name": "system.scrape", "case": f"{case}/{name}",
                          "value": round(1e3 * value, 3), "unit": "ms", "machine": machine()}),
              flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build_dir", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    programs = args.build_dir.resolve() / "bin"
    with tempfile.TemporaryDirectory(prefix="troupe_scrape_") as name:
        folder = pathlib.Path(name)
        shard = subprocess.Popen([
            programs / "troupe-replay-server", "--listen=127.0.0.1:0", "--log_level=warning",
            f"--config={ROOT}/tests/bench/replay/replay.txtpb", f"--data_dir={folder}/shard",
            f"--port_file={folder}/port", "--metrics_port=0",
            f"--metrics_port_file={folder}/metrics_port"])
        try:
            target = f"127.0.0.1:{read_when_there(folder / 'port')}"
            port = int(read_when_there(folder / "metrics_port"))
            load = [programs / "troupe-replay-load", f"--target={target}"]
            subprocess.check_call([*load, "--mode=fill", "--rows=100000"],
                                  stdout=subprocess.DEVNULL)
            report("idle", scrapes(port, min(args.seconds, 3))[0])
            loader = subprocess.Popen([*load, "--mode=both", "--clients=2",
                                       f"--seconds={args.seconds + 1}"], stdout=sys.stderr)
            time.sleep(1)  # its warm-up
            times, size = scrapes(port, args.seconds)
            loader.wait(timeout=60)
            report("full_load", times)
            print(f"scrape_bench: {len(times)} scrapes of {size} bytes", file=sys.stderr)
        finally:
            shard.terminate()
            shard.wait(timeout=30)


if __name__ == "__main__":
    main()
