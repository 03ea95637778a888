"""PPO and SAC learn to catch a dot that they see as pixels, in stacks of two frames, through the whole
system and an environment in Python."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TIMEOUT = 600
ENVIRONMENT = """
  environment { gymnasium { id: "CatchDot-v0" module: "catch_dot" kwargs_json: '{"discrete": %s}' } }
"""
ENCODER = """
  encoder { frame_stack: 2 features: 64 layers { channels: 16 kernel_size: 4 stride: 2 }
            layers { channels: 16 kernel_size: 3 stride: 2 } random_shift: 1 }
"""
PPO = ENVIRONMENT % "true" + """
  run: "ppo_pixels" total_env_steps: 60000 actor { num_envs: 8 }
  learner { ppo { unroll_length: 64 batch_windows: 8 epochs: 4 minibatch_size: 128
                  learning_rate: 1e-3 gamma: 0.95 entropy_coefficient: 0.01 scale_rewards: false
                  %s } }
""" % ENCODER
SAC = ENVIRONMENT % "false" + """
  run: "sac_pixels" total_env_steps: 8000 actor { num_envs: 4 }
  learner { sac { random_steps: 1000 batch_size: 64 gamma: 0.9 tau: 0.02
                  actor_learning_rate: 1e-3 critic_learning_rate: 1e-3 alpha_learning_rate: 1e-3
                  actor { hidden_sizes: [64, 64] } critic { hidden_sizes: [64, 64] } %s } }
""" % ENCODER


class Pixels(unittest.TestCase):
    def run_up(self, config, sets=()):
        with tempfile.TemporaryDirectory(prefix="troupe_pixels_") as folder:
            path = os.path.join(folder, "config.txtpb")
            with open(path, "w") as file:
                file.write(config)
            run_dir = os.path.join(folder, "run")
            done = subprocess.run(
                [os.path.join(ROOT, "deploy", "up"), "--no-build", "--build_dir", BUILD_DIR,
                 "--no-prometheus", "--config", path, "--run_dir", run_dir,
                 "--set=evaluator.episodes=50", *[f"--set={word}" for word in sets]],
                capture_output=True, text=True, timeout=TIMEOUT,
                env={**os.environ, "PYTHONPATH": os.path.join(HERE, "pixels")})
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            with open(os.path.join(run_dir, "summary.json")) as file:
                summary = json.load(file)
        self.assertEqual((summary["rows_lost"], summary["rows_duplicated"]), (0, 0))
        return summary

    def test_ppo_catches_the_dot(self):
        self.assertGreaterEqual(self.run_up(PPO)["eval_return_mean"], 0.9)

    def test_sac_catches_the_dot_in_compressed_rows(self):
        compression = ("actor.compression.column=observation", "actor.compression.codec=ZSTD")
        self.assertGreaterEqual(self.run_up(SAC, compression)["eval_return_mean"], 0.9)


if __name__ == "__main__":
    BUILD_DIR = sys.argv.pop(1)
    unittest.main()
