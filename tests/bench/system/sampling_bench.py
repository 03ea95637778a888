"""SAC updates a second of a learner process, with its batches drawn by a shard and drawn from the
replica in its own memory, in turn.

    sampling_bench.py --build_dir build/release [--rounds 3] [--seconds 8] [--batch 256]
                      [--engine AUTO|FUSED|REFERENCE] [--device cpu]

HalfCheetah-v5, 2x256, as sac_half_cheetah; a shard is filled with random steps, the actors end, and
nothing limits the learner.  Prints lines of bench.jsonl.
"""
import argparse
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
ROWS = 20000


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    return f"{os.cpu_count()} x {model}"


class Bench:
    def __init__(self, args, folder):
        self._args = args
        self._folder = folder
        self._processes = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]

    def _start(self, program, *flags):
        command = [os.path.join(self._args.build_dir, "bin", program), "--log_level=warning",
                   "--metrics_port=-1",
                   "--config", str(ROOT / "deploy/configs/sac_half_cheetah.txtpb"),
                   f"--set=shards=127.0.0.1:{self._port}", "--set=tables.capacity_rows=1000000",
                   "--set=tables.rate_limiter.samples_per_insert=0",
                   f"--set=learner.sac.random_steps={ROWS}",
                   f"--set=learner.sac.batch_size={self._args.batch}",
                   f"--set=learner.engine={self._args.engine}",
                   f"--set=learner.device={self._args.device}",
                   "--set=learner.log_interval_updates=50",
                   "--set=learner.checkpoint_interval_updates=1000000000", *flags]
        process = subprocess.Popen(command, env=dict(os.environ, OPENBLAS_NUM_THREADS="1"))
        self._processes.append(process)
        return process

    def _stop(self, process):
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        self._processes.remove(process)

    def _learner(self, name, sampling):
        run_dir = os.path.join(self._folder, name)
        process = self._start("troupe-learner", "--run_dir", run_dir,
                              f"--set=learner.sampling={sampling}")
        return process, os.path.join(run_dir, "learner.jsonl")

    def _await(self, path):
        while not os.path.exists(path):
            time.sleep(0.05)
            if any(process.poll() is not None for process in self._processes):
                raise SystemExit("a process ended")

    def fill(self):
        self._start("troupe-replay-server", f"--listen=127.0.0.1:{self._port}", "--data_dir",
                    os.path.join(self._folder, "shard"))
        learner, lines = self._learner("fill", "REMOTE")
        actor = self._start("troupe-actor")
        self._await(lines)  # the first updates: the shard has its rows
        self._stop(actor)
        self._stop(learner)

    def rate(self, name, sampling):
        """Updates a second, without the first lines, in which the learner starts."""
        learner, path = self._learner(name, sampling)
        self._await(path)
        time.sleep(self._args.seconds)
        self._stop(learner)
        with open(path, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file][2:]
        steps = lines[-1]["updates"] - lines[0]["updates"]
        return steps / (lines[-1]["unix_time"] - lines[0]["unix_time"])

    def end(self):
        for process in self._processes:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build_dir", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--engine", choices=("AUTO", "FUSED", "REFERENCE"), default="AUTO")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    rates = {"REMOTE": [], "REPLICA": []}
    with tempfile.TemporaryDirectory(prefix="troupe_sampling_bench_") as folder:
        bench = Bench(args, folder)
        try:
            bench.fill()
            for i in range(args.rounds):
                for sampling, found in rates.items():
                    found.append(bench.rate(f"{sampling}-{i}", sampling))
        finally:
            bench.end()
    for sampling, found in rates.items():
        kind = f"{args.engine}/{sampling}".lower()
        print(json.dumps({"name": "system.sac_updates", "case": f"{args.device}/17-6/{args.batch}/1/{kind}",
                          "value": statistics.median(found), "unit": "updates/s",
                          "min": min(found), "max": max(found), "machine": machine()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
