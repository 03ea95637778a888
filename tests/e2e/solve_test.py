"""PPO solves CartPole-v1 and Acrobot-v1, SAC Pendulum-v1 from a replica of its table, within their steps
through the whole system."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UP = os.path.join(ROOT, "deploy", "up")
TIMEOUT = 600


class Solve(unittest.TestCase):
    def solve(self, config, env_steps, return_mean, sets=()):
        with tempfile.TemporaryDirectory(prefix="troupe_solve_") as folder:
            run_dir = os.path.join(folder, "run")
            path = os.path.join(ROOT, "deploy", "configs", f"{config}.txtpb")
            done = subprocess.run(
                [UP, "--no-build", "--build_dir", BUILD_DIR, "--no-prometheus", "--config", path,
                 "--run_dir", run_dir, f"--set=total_env_steps={env_steps}",
                 "--set=evaluator.episodes=20", *[f"--set={word}" for word in sets]],
                capture_output=True, text=True, timeout=TIMEOUT)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            with open(os.path.join(run_dir, "summary.json")) as file:
                summary = json.load(file)
            with open(os.path.join(run_dir, "learner.jsonl")) as file:
                last = json.loads(file.readlines()[-1])
        self.assertEqual(summary["eval_episodes"], 20)
        # A batch of the size that its config says may be begun before the last step.
        self.assertLess(last["env_steps"], env_steps + 8 * 128)
        self.assertGreaterEqual(summary["eval_return_mean"], return_mean)
        self.assertEqual((summary["rows_lost"], summary["rows_duplicated"]), (0, 0))

    def test_cart_pole_in_100_000_steps(self):
        self.solve("ppo_cartpole", 100_000, 475)

    def test_pendulum_in_8_000_steps_from_a_replica(self):
        self.solve("sac_pendulum", 8_000, -200, ["learner.sampling=REPLICA"])

    # After 8,000 steps one of three other seeds was at -448, and this one, beside two builds, at -319.
    def test_pendulum_in_12_000_steps_from_a_replica_by_priority(self):
        self.solve("sac_pendulum", 12_000, -200,
                   ["learner.sampling=REPLICA", "tables.selector=PRIORITIZED"])

    def test_acrobot_in_200_000_steps(self):
        self.solve("ppo_acrobot", 200_000, -100)


if __name__ == "__main__":
    BUILD_DIR = sys.argv.pop(1)
    unittest.main()
