"""A policy's way out of Troupe: a CartPole run by deploy/up, then each of troupe's commands on it.

    policy_leaves_test.py BUILD_DIR
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import gymnasium
import numpy as np
import onnxruntime

from troupe.policys_view import PolicysView

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = ROOT / "deploy" / "configs" / "ppo_cartpole.txtpb"
EPISODES = 10


def run(*command, **environment):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          check=False, timeout=300, env={**os.environ, **environment})


class PolicyLeavesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        cls.run_dir = cls.folder / "run"
        trained = run(ROOT / "deploy" / "up", "--no-build", "--no-prometheus", "--build_dir",
                      BUILD_DIR, "--config", CONFIG, "--run_dir", cls.run_dir, "--shards=1",
                      "--actors=1", "--set=total_env_steps=6000",
                      "--set=evaluator.interval_env_steps=2000",
                      f"--set=evaluator.episodes={EPISODES}")
        if trained.returncode != 0:
            raise RuntimeError(trained.stdout + trained.stderr)

    def troupe(self, *words, **environment):
        done = run(BUILD_DIR / "bin" / "troupe", *words, **environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def evaluated(self, checkpoint):
        """What the actor's own evaluation of a checkpoint says: return, steps."""
        said = self.troupe("evaluate", "--config", CONFIG, "--checkpoint", checkpoint,
                           f"--set=evaluator.episodes={EPISODES}")
        return re.search(r"return (\S+) .* after (\d+) environment steps", said, re.S).groups()

    def test_a_card_has_the_figures_of_the_runs_last_policy(self):
        card = self.folder / "card"
        self.troupe("card", self.run_dir, "-o", card)
        evaluations = (card / "evaluations.jsonl").read_text().splitlines()
        last = json.loads(evaluations[-1])
        value = f"{last['return_mean']:.2f} +/- {last['return_std']:.2f}"
        text = (card / "README.md").read_text()
        self.assertIn(f"value: {value}", text)
        self.assertRegex(text, r"\| commit \| `[0-9a-f]{7,40}")
        _, steps = self.evaluated(self.run_dir)
        self.assertEqual(int(steps), last["env_steps"])

    def test_an_onnx_model_balances_the_pole_as_well_as_the_actor(self):
        path = self.folder / "policy.onnx"
        said = self.troupe("export", self.run_dir, "-o", path)
        self.assertIn("input observation", said)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        env = gymnasium.make("CartPole-v1")
        returns = []
        for seed in range(EPISODES):
            observation, _ = env.reset(seed=seed)
            total, done = 0.0, False
            while not done:
                action = session.run(["action"], {"observation": observation[None]})[0]
                observation, reward, terminated, truncated, _ = env.step(int(action[0, 0]))
                total, done = total + reward, terminated or truncated
            returns.append(total)
        summary = json.loads((self.run_dir / "summary.json").read_text())
        # Of other starts than the evaluator's; a policy at random balances for 20 steps.
        self.assertGreater(np.mean(returns), max(60, 0.5 * summary["eval_return_mean"]))

    def test_videos_and_curves_are_made(self):
        for name in ("episode.mp4", "episode.gif"):
            said = self.troupe("play", self.run_dir, "-o", self.folder / name, "--max_steps=30")
            self.assertIn("episode 1: return 30.0 in 30 steps", said)
            self.assertGreater((self.folder / name).stat().st_size, 1000)
        self.troupe("plot", self.run_dir, "-o", self.folder / "curve.svg")
        self.assertIn("<svg", (self.folder / "curve.svg").read_text()[:2000])

    def test_a_checkpoint_that_python_wrote_is_evaluated_like_its_source(self):
        done = run(ROOT / "build" / "venv" / "bin" / "python", "-c",
                   "import sys; from troupe import checkpoint\n"
                   "checkpoint.write(sys.argv[2], checkpoint.find(sys.argv[1]))",
                   self.run_dir, self.folder / "copy", PYTHONPATH=BUILD_DIR / "python")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.evaluated(self.folder / "copy"), self.evaluated(self.run_dir))

    def test_velocities_are_hidden_in_play_as_actors_hide_them(self):
        for name in ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5",
                     "HumanoidStandup-v5", "Swimmer-v5", "Reacher-v5", "Pusher-v5",
                     "InvertedPendulum-v5", "InvertedDoublePendulum-v5", "Pendulum-v1",
                     "CartPole-v1", "MountainCarContinuous-v0", "Acrobot-v1"):
            with self.subTest(name):
                env = gymnasium.make(name)
                whole, hidden = self.observed(env, name, False), self.observed(env, name, True)
                view = PolicysView(env, name, True, mock.Mock(observation_size=len(hidden),
                                                              encoder=None))
                np.testing.assert_array_equal(view.first(whole).vector[0], hidden)

    def observed(self, env, name, hide_velocities):
        """What an actor's environment shows after one step."""
        actions = self.folder / "actions"
        env.action_space.seed(1)
        actions.write_text(" ".join(str(x) for x in np.ravel(env.action_space.sample())))
        done = run(BUILD_DIR / "bin" / "troupe-actor", "--log_level=error", "--metrics_port=-1",
                   f"--set=environment.id={name}", "--set=learner.ppo.epochs=1",
                   f"--set=environment.hide_velocities={str(hide_velocities).lower()}",
                   f"--probe={actions}")
        self.assertEqual(done.returncode, 0, done.stderr)
        return np.array(json.loads(done.stdout.splitlines()[-1])["observation"], np.float32)

    def test_a_python_without_the_package_is_named_with_what_to_do(self):
        lonely = self.folder / "bin" / "troupe"
        lonely.parent.mkdir()
        shutil.copy2(BUILD_DIR / "bin" / "troupe", lonely)
        failed = run(lonely, "export", self.run_dir, TROUPE_PYTHON="/usr/bin/python3",
                     PYTHONPATH="")
        self.assertEqual(failed.returncode, 1)
        self.assertIn("/usr/bin/python3 has no package troupe", failed.stderr)
        self.assertIn("pip install", failed.stderr)
        failed = run(lonely, "play", self.run_dir, TROUPE_PYTHON="/nowhere/python")
        self.assertEqual(failed.returncode, 1)
        self.assertIn("cannot start /nowhere/python", failed.stderr)


class PixelsLeaveTest(unittest.TestCase):
    """The same of a world in Python whose pixels decide (dot_world.py)."""

    CONFIG = """
        run: "dot"  total_env_steps: 4000
        environment { gymnasium { id: "Dot-v0" module: "dot_world" } }
        actor { num_envs: 4 }
        evaluator { episodes: 2 interval_env_steps: 2000 num_envs: 2 }
        learner { ppo { unroll_length: 40 batch_windows: 4 epochs: 4 minibatch_size: 40
          learning_rate: 1e-3
          encoder { layers { channels: 8 kernel_size: 3 stride: 1 } features: 32
                    frame_stack: 2 } } }
    """

    def test_a_policy_of_pixels_plays_in_python_as_in_the_actor(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = pathlib.Path(temporary.name)
        config, run_dir = folder / "dot.txtpb", folder / "run"
        config.write_text(self.CONFIG)
        world = {"PYTHONPATH": str(pathlib.Path(__file__).parent), "TROUPE_PYTHON": sys.executable}
        trained = run(ROOT / "deploy" / "up", "--no-build", "--no-prometheus", "--build_dir",
                      BUILD_DIR, "--config", config, "--run_dir", run_dir, "--shards=1",
                      "--actors=1", **world)
        self.assertEqual(trained.returncode, 0, trained.stdout + trained.stderr)
        troupe = BUILD_DIR / "bin" / "troupe"
        evaluated = run(troupe, "evaluate", "--config", config, "--checkpoint", run_dir, **world)
        played = run(troupe, "play", run_dir, "-o", folder / "episode.gif", **world)
        self.assertEqual(played.returncode, 0, played.stderr)
        theirs = re.search(r"return (\S+)0 \+- 0.00 over 2 episodes", evaluated.stdout)
        self.assertIsNotNone(theirs, evaluated.stdout + evaluated.stderr)
        self.assertIn(f"episode 1: return {theirs[1]} in 40 steps", played.stdout)
        # Without the order of frames: always the same answer, 24.
        self.assertGreater(float(theirs[1]), 30)


if __name__ == "__main__":
    BUILD_DIR = pathlib.Path(sys.argv.pop(1))
    unittest.main()
