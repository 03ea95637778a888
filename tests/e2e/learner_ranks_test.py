"""Two learners that take each update together solve Pendulum-v1 with SAC and CartPole-v1 with PPO
through the whole system, and one of them that is killed costs what was learned since the last
checkpoint, no more."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UP = os.path.join(ROOT, "deploy", "up")
TIMEOUT = 600


def lines(path):
    try:
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return []


def rank_of(run_dir):
    """The process of rank 1 that learns into `run_dir`."""
    found = subprocess.run(["pgrep", "-f", f"troupe-learner.*{run_dir} --rank=1"],
                           capture_output=True, text=True, check=False).stdout.split()
    return int(found[-1]) if found else None


class Ranks(unittest.TestCase):
    def solve(self, folder, sets=(), meanwhile=lambda run_dir: None):
        return self.learn(folder, "sac_pendulum", -200,
                          ["total_env_steps=8000", "learner.sac.batch_size=128",
                           "learner.checkpoint_interval_updates=500", *sets], meanwhile)

    def learn(self, folder, config, least_return, sets, meanwhile=lambda run_dir: None):
        run_dir = os.path.join(folder, "run")
        config = os.path.join(ROOT, "deploy", "configs", f"{config}.txtpb")
        with open(os.path.join(folder, "up.log"), "w+", encoding="utf-8") as log:
            with subprocess.Popen(
                    [UP, "--no-build", "--build_dir", BUILD_DIR, "--no-prometheus", "--config",
                     config, "--run_dir", run_dir, "--set=learner.ranks=2",
                     "--set=evaluator.episodes=20", *[f"--set={word}" for word in sets]],
                    stdout=log, stderr=subprocess.STDOUT) as up:
                meanwhile(run_dir)
                code = up.wait(TIMEOUT)
            log.seek(0)
            said = log.read()
        self.assertEqual(code, 0, said)
        with open(os.path.join(run_dir, "summary.json"), encoding="utf-8") as file:
            summary = json.load(file)
        self.assertGreaterEqual(summary["eval_return_mean"], least_return, said)
        self.assertEqual((summary["rows_lost"], summary["rows_duplicated"]), (0, 0))
        mine, other = (lines(os.path.join(run_dir, *rank, "learner.jsonl"))[-1]
                       for rank in ((), ("rank-1",)))
        self.assertEqual(mine["updates"], other["updates"])
        return said

    def test_two_ranks_with_replicas_solve_pendulum(self):
        with tempfile.TemporaryDirectory(prefix="troupe_ranks_") as folder:
            self.solve(folder, ["learner.sampling=REPLICA"])

    def test_two_ranks_solve_cart_pole_by_ppo(self):
        with tempfile.TemporaryDirectory(prefix="troupe_ranks_") as folder:
            self.learn(folder, "ppo_cartpole", 400,
                       ["total_env_steps=60000", "learner.ppo.batch_windows=4",
                        "learner.ppo.minibatch_size=32"])

    def test_a_rank_that_is_killed_begins_again_at_the_checkpoint(self):
        def kill_after_a_checkpoint(run_dir):
            deadline = time.monotonic() + TIMEOUT
            while time.monotonic() < deadline:
                progress = lines(os.path.join(run_dir, "learner.jsonl"))
                if progress and progress[-1]["updates"] >= 1500:
                    return os.kill(rank_of(run_dir), signal.SIGKILL)
                time.sleep(0.05)
            return self.fail("no 1500 updates")

        with tempfile.TemporaryDirectory(prefix="troupe_ranks_") as folder:
            said = self.solve(folder, meanwhile=kill_after_a_checkpoint)
            with open(os.path.join(folder, "run", "logs", "learner.log"),
                      encoding="utf-8") as log:
                of_the_learner = log.read()
        self.assertIn("rank-1 was killed by SIGKILL", said)
        self.assertIn("another one is gone", of_the_learner)
        self.assertIn("resumed", of_the_learner)


if __name__ == "__main__":
    BUILD_DIR = sys.argv.pop(1)
    unittest.main()
