"""Where velocities are hidden, a policy with a memory solves what the same one without it does not,
within the same steps, through the whole system."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UP = os.path.join(ROOT, "deploy", "up")
TIMEOUT = 600


class Memory(unittest.TestCase):
    def best_return(self, config, *sets):
        """Mean return of the best policy that was evaluated: of 20 episodes, or 10 of the pendulum."""
        with tempfile.TemporaryDirectory(prefix="troupe_memory_") as folder:
            run_dir = os.path.join(folder, "run")
            path = os.path.join(ROOT, "deploy", "configs", f"{config}.txtpb")
            done = subprocess.run(
                [UP, "--no-build", "--build_dir", BUILD_DIR, "--no-prometheus", "--config", path,
                 "--run_dir", run_dir, *(f"--set={word}" for word in sets)],
                capture_output=True, text=True, timeout=TIMEOUT)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            with open(os.path.join(run_dir, "summary.json")) as file:
                summary = json.load(file)
            with open(os.path.join(run_dir, "evaluator", "evaluations.jsonl")) as file:
                means = [json.loads(line)["return_mean"] for line in file]
        self.assertEqual((summary["rows_lost"], summary["rows_duplicated"]), (0, 0))
        return max(means)

    def test_ppo_balances_a_pole_whose_speed_it_does_not_see(self):
        steps = "total_env_steps=150000"
        self.assertGreaterEqual(self.best_return("ppo_cartpole_hidden", steps), 450)
        without = self.best_return("ppo_cartpole_hidden", steps,
                                   "learner.ppo.recurrence.kind=NO_RECURRENCE")
        self.assertLess(without, 150)

    def test_sac_swings_up_a_pendulum_whose_speed_it_does_not_see(self):
        self.assertGreaterEqual(self.best_return("sac_pendulum_hidden"), -300)
        without = self.best_return("sac_pendulum_hidden",
                                   "learner.sac.recurrence.kind=NO_RECURRENCE")
        self.assertLess(without, -700)


if __name__ == "__main__":
    BUILD_DIR = sys.argv.pop(1)
    unittest.main()
