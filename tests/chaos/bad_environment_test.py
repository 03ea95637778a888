"""One of 8 environments in Python crashes, exits, hangs, gives NaN and wrong shapes and resets slowly,
over and over, while SAC learns: training goes on to its end, each fault is counted and explained, and
no row is lost.

    bad_environment_test.py BUILD_DIR [--seconds 30]
"""
import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Words of the actor's log for each kind of fault.
EXPLAINED = {"raise": "RuntimeError: the pendulum has come off", "exit": "exited with code 3",
             "hang": "no step or reset within", "nan": "numbers that are not finite",
             "shape": r"observation has the shape \(1,\), its space says \(3,\)"}


def command(args, run_dir):
    settings = ["environment.gymnasium.id=FaultyPendulum-v0",
                "environment.gymnasium.module=faulty_world",
                "environment.gymnasium.envs_per_child=1",
                "environment.gymnasium.step_timeout_ms=3000", "actor.num_envs=8",
                "total_env_steps=100000000", "evaluator.num_envs=1", "evaluator.episodes=1",
                "evaluator.interval_env_steps=100000000",
                "learner.sac.random_steps=1000", "learner.sac.updates_per_env_step=0.1",
                "learner.sac.batch_size=32"]
    return [str(ROOT / "deploy" / "up"), "--no-build", "--no-prometheus", "--build_dir",
            args.build_dir, "--config", str(ROOT / "deploy" / "configs" / "sac_pendulum.txtpb"),
            "--run_dir", str(run_dir), "--actors", "1", "--shards", "1",
            *[word for setting in settings for word in ("--set", setting)]]


def env_steps(run_dir):
    try:
        return json.loads((run_dir / "learner.jsonl").read_text().splitlines()[-1])["env_steps"]
    except (OSError, IndexError, ValueError):
        return 0


def injected(path):
    return collections.Counter(path.read_text().split()) if path.exists() else collections.Counter()


def watch(args, run_dir, faults, process):
    """Runs until the time is over and every fault has come; returns the steps seen on the way."""
    steps, end = [], time.monotonic() + args.seconds
    while time.monotonic() < end or not all(injected(faults)[word] for word in EXPLAINED):
        assert process.poll() is None, "deploy/up ended before its time"
        assert time.monotonic() < end + 300, f"not every fault came: {injected(faults)}"
        time.sleep(2)
        steps.append(env_steps(run_dir))
    return steps


def check(run_dir, faults, steps):
    log = (run_dir / "logs" / "actor-0.log").read_text()
    came = injected(faults)
    for fault, words in EXPLAINED.items():
        explained = len(re.findall(words, log))
        # The last one may have come as the actor was stopped.
        assert came[fault] - 1 <= explained <= came[fault], (fault, came[fault], explained)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["rows_lost"], summary["rows_duplicated"]) == (0, 0), summary
    assert came["slept"] > 0, came
    assert steps[-1] > steps[len(steps) // 2] > 0, f"training stood still: {steps}"
    return came, summary


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build_dir")
    parser.add_argument("--seconds", type=float, default=30)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="troupe_bad_environment_") as folder:
        run_dir, faults = pathlib.Path(folder) / "run", pathlib.Path(folder) / "faults"
        environment = dict(os.environ, TROUPE_FAULTS=str(faults), PYTHONPATH=str(HERE))
        with subprocess.Popen(command(args, run_dir), env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                steps = watch(args, run_dir, faults, process)
            finally:
                process.terminate()
                output = process.communicate(timeout=60)[0].decode()
        assert process.returncode == 0, output
        came, summary = check(run_dir, faults, steps)
        print(f"{dict(came)} in {steps[-1]} steps; {summary['rows_lost']} rows lost")


if __name__ == "__main__":
    sys.exit(main())
