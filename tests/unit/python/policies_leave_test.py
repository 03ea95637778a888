"""Cards, videos and curves of a policy, made from a folder as a run leaves it."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from troupe import __main__ as command
from troupe import checkpoint, environments, learning_curve, policys_view, safetensors
from troupe import source as sources
from troupe.policy_metadata import Convolution, Encoder

VERSION = (1 << 40) + 9


def policy_image(observation_size, bounds, hidden=8):
    """A squashed Gaussian with random weights."""
    random = np.random.default_rng(1)
    tensors = {}
    for name, rows, columns in (("hidden.0", observation_size, hidden), ("head", hidden, 2)):
        tensors[f"actor.{name}.weight"] = random.standard_normal((rows, columns), np.float32)
        tensors[f"actor.{name}.bias"] = np.zeros(columns, np.float32)
    metadata = {"format": "troupe.policy.2", "run": "a_run", "version": str(VERSION),
                "env_steps": "2000", "updates": "1900", "warmup": "0", "final": "1",
                "observation_size": str(observation_size), "action_size": "1",
                "distribution": "squashed_gaussian", "observation_clip": "0.0",
                "network": json.dumps({"hiddenSizes": [hidden]}),
                "action_low": json.dumps([-bounds]), "action_high": json.dumps([bounds]),
                "log_std_min": "-20.0", "log_std_max": "2.0"}
    return safetensors.encode(tensors, metadata)


def evaluation(steps, mean, std=2.5, version=VERSION):
    return {"env_steps": steps, "updates": steps, "policy_version": version, "return_mean": mean,
            "return_std": std, "episodes": 10, "length_mean": 200.0, "unix_time": 1.0}


class PolicysViewTest(unittest.TestCase):
    def view(self, space, observation_size, encoder=None, hide_velocities=False):
        metadata = mock.Mock(observation_size=observation_size, encoder=encoder)
        env = mock.Mock(observation_space=space)
        return policys_view.PolicysView(env, "A-v1", hide_velocities, metadata)

    def test_parts_of_observations_are_one_vector_as_actors_make_it(self):
        space = spaces.Dict({"pose": spaces.Box(-1, 1, (2, 2)),
                             "gear": spaces.Discrete(3, start=5),
                             "both": spaces.Tuple((spaces.MultiBinary(2),
                                                   spaces.MultiDiscrete([2, 3])))})
        seen = self.view(space, 4 + 3 + 2 + 5).first(
            {"pose": np.array([[1, 2], [3, 4]], np.float32), "gear": 6,
             "both": (np.array([1, 0]), np.array([1, 2]))})
        # Gymnasium sorts the keys of a Dict.
        np.testing.assert_array_equal(
            seen.vector, [[1, 0] + [0, 1] + [0, 0, 1] + [0, 1, 0] + [1, 2, 3, 4]])
        self.assertIsNone(seen.images)

    def test_frames_are_stacked_from_the_first_of_the_episode_on(self):
        space = spaces.Dict({"camera": spaces.Box(0, 255, (4, 3), np.uint8),
                             "speed": spaces.Box(0, 9, (1,), np.float32)})
        encoder = Encoder(4, 3, 1, 3, (Convolution(2, 2, 1),), 8)
        view = self.view(space, 1, encoder)

        def stack(seen):
            self.assertEqual(seen.images.shape, (1, 3, 4, 3, 1))
            return seen.images[0, :, 0, 0, 0].tolist()

        def frame(number):
            return {"camera": np.full((4, 3), number, np.uint8), "speed": np.ones(1, np.float32)}

        self.assertEqual(stack(view.first(frame(7))), [7, 7, 7])
        self.assertEqual(stack(view.next(frame(8))), [7, 7, 8])
        self.assertEqual(stack(view.next(frame(9))), [7, 8, 9])
        self.assertEqual(stack(view.next(frame(10))), [8, 9, 10])
        self.assertEqual(stack(view.first(frame(1))), [1, 1, 1])

    def test_choices_begin_where_the_space_does(self):
        self.assertEqual(policys_view.to_action(spaces.Discrete(3, start=5), np.array([2])), 7)
        grid = spaces.MultiDiscrete([[3, 3], [3, 3]])
        np.testing.assert_array_equal(policys_view.to_action(grid, np.array([0, 1, 2, 0])),
                                      [[0, 1], [2, 0]])
        box = spaces.Box(-1, 1, (2, 1), np.float64)
        action = policys_view.to_action(box, np.array([0.5, -0.5], np.float32))
        self.assertEqual((action.shape, action.dtype), ((2, 1), np.float64))


class PoliciesLeaveTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def run_folder(self, name, evaluations, environment='id: "Pendulum-v1"', seed=1,
                   image=None):
        run = self.folder / name
        config = (f'run: "a_run"\nseed: {seed}\nenvironment {{ {environment} }}\n'
                  'shards: "10.0.0.7:4000"\nlearner { sac { gamma: 0.9 } }\n')
        checkpoint.write(run / "checkpoints", checkpoint.Checkpoint(1900, {}, {
            "policy.safetensors": image or policy_image(3, 2.0),
            "config.json": json.dumps({"run": "a_run", "config": config}).encode()}))
        (run / "evaluator").mkdir()
        (run / "evaluator" / "evaluations.jsonl").write_text(
            "".join(json.dumps(e) + "\n" for e in evaluations) + '{"half a li')
        (run / "state.json").write_text(json.dumps({"commit": "abc123"}))
        return run

    def troupe(self, *words):
        """Exit code, and what was printed."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = command.main([str(word) for word in words])
        return code, out.getvalue() + err.getvalue()

    def test_a_card_says_what_was_measured_of_this_policy_and_nothing_else(self):
        run = self.run_folder("run", [evaluation(1000, -900.0, version=5),
                                      evaluation(2000, -151.25)])
        code, said = self.troupe("card", run, "-o", self.folder / "card")
        self.assertEqual(code, 0, said)
        card = (self.folder / "card" / "README.md").read_text()
        self.assertTrue(card.startswith("---\n"))
        front = card.split("---\n")[1]
        for line in ("library_name: troupe", "- reinforcement-learning", '- "Pendulum-v1"',
                     "- type: mean_reward", "value: -151.25 +/- 2.50", 'type: "Pendulum-v1"'):
            self.assertIn(line, front)
        for what in ("| seed | 1 |", "| environment steps | 2,000 |", "`abc123`",
                     "over 10 deterministic episodes"):
            self.assertIn(what, card)
        config = (self.folder / "card" / "config.txtpb").read_text()
        self.assertIn("gamma: 0.9", config)
        self.assertNotIn("10.0.0.7", config)

    def test_a_card_gives_the_hub_no_figure_of_another_policy(self):
        run = self.run_folder("run", [evaluation(1000, -77.0, version=5)])
        self.assertEqual(self.troupe("card", run, "-o", self.folder / "card")[0], 0)
        card = (self.folder / "card" / "README.md").read_text()
        self.assertNotIn("mean_reward", card)
        self.assertIn("was not evaluated", card)

    def test_a_card_of_several_seeds_has_their_spread(self):
        runs = [self.run_folder(f"run{seed}", [evaluation(2000, mean)], seed=seed)
                for seed, mean in ((1, -100.0), (2, -200.0), (3, -300.0))]
        self.assertEqual(self.troupe("card", *runs, "-o", self.folder / "card")[0], 0)
        card = (self.folder / "card" / "README.md").read_text()
        self.assertIn("Over 3 seeds: -200.00 +/- 100.00", card)
        self.assertIn("| 3 | 2,000 | -300.00 +/- 2.50 | 10 |", card)

    def test_what_a_card_says_of_its_use_works(self):
        run = self.run_folder("run", [evaluation(2000, -151.25)])
        self.assertEqual(self.troupe("card", run, "-o", self.folder / "card")[0], 0)
        card = (self.folder / "card" / "README.md").read_text()
        program = card.split("```python\n")[1].split("```")[0]
        done = subprocess.run([sys.executable, "-c", program + "assert action.shape == (1, 1)"],
                              cwd=self.folder / "card", capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_card_of_runs_with_the_same_seed_says_so(self):
        runs = [self.run_folder(f"run{i}", [evaluation(2000, i)]) for i in range(2)]
        self.assertEqual(self.troupe("card", *runs, "-o", self.folder / "card")[0], 0)
        self.assertIn("Over 2 runs, not all of", (self.folder / "card" / "README.md").read_text())

    def test_a_card_of_different_tasks_or_without_evaluations_is_refused(self):
        run = self.run_folder("run", [evaluation(2000, 1.0)])
        other = self.run_folder("other", [evaluation(2000, 1.0)], environment='id: "Acrobot-v1"')
        code, said = self.troupe("card", run, other, "-o", self.folder / "card")
        self.assertEqual((code, "one task" in said), (1, True), said)
        (run / "evaluator" / "evaluations.jsonl").unlink()
        code, said = self.troupe("card", run, "-o", self.folder / "card")
        self.assertEqual((code, "no evaluations" in said), (1, True), said)

    def test_the_folder_of_a_card_is_a_policy_again(self):
        run = self.run_folder("run", [evaluation(2000, -151.25)])
        self.assertEqual(self.troupe("card", run, "-o", self.folder / "card")[0], 0)
        ours, packed = sources.find(run), sources.find(self.folder / "card")
        self.assertEqual(packed.policy.metadata, ours.policy.metadata)
        self.assertEqual(packed.environment_id, "Pendulum-v1")
        self.assertEqual(packed.evaluations, ours.evaluations)

    def test_an_episode_becomes_a_gif_with_its_return_below(self):
        run = self.run_folder("run", [])
        path = self.folder / "episode.gif"
        code, said = self.troupe("play", run, "-o", path, "--max_steps", 140)
        self.assertEqual(code, 0, said)
        self.assertRegex(said, r"episode 1: return -\d+\.\d in 140 steps")
        with Image.open(path) as picture:
            # Pendulum is drawn 30 times a second, a GIF shows every second of 141 frames.
            self.assertEqual(picture.n_frames, 71)
            picture.seek(picture.n_frames - 1)
            frame = np.asarray(picture.convert("RGB"))
        height = frame.shape[0]
        self.assertLess(frame[-3:].mean(), 60, "no dark strip")
        self.assertGreater(frame[height * 9 // 10:].max(), 200, "no text")
        self.assertGreater(frame[:height // 2].std(), 5, "an empty picture")

    def test_mujoco_is_drawn_without_a_screen_into_an_mp4(self):
        run = self.run_folder("run", [], environment='id: "InvertedPendulum-v5"',
                              image=policy_image(4, 3.0))
        path = self.folder / "episode.mp4"
        with mock.patch.dict(os.environ):
            os.environ.pop("MUJOCO_GL", None)
            code, said = self.troupe("play", run, "-o", path, "--episodes", 2, "--max_steps", 6)
        self.assertEqual(code, 0, said)
        frame = subprocess.run(["ffmpeg", "-loglevel", "error", "-i", path, "-f", "rawvideo",
                                "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
        pictures = np.frombuffer(frame, np.uint8).reshape(-1, 536, 480, 3)
        steps = [int(word.split()[0]) for word in said.split(" in ")[1:]]
        self.assertEqual(len(pictures), sum(steps) + 2)
        self.assertGreater(pictures[0, :480].std(), 10, "an empty picture")

    def test_mujocos_camera_goes_along_with_a_body_that_runs(self):
        for name, camera in (("HalfCheetah-v5", "track"), ("Hopper-v5", None)):
            env = gymnasium.make(name, render_mode="rgb_array")
            environments.follow_the_body(env)
            renderer = env.unwrapped.mujoco_renderer
            number = renderer.camera_id
            self.assertEqual(renderer.model.camera(number).name if number >= 0 else None, camera)

    def test_what_is_missing_is_named(self):
        run = self.run_folder("run", [])
        with mock.patch.object(shutil, "which", return_value=None):
            code, said = self.troupe("play", run, "-o", self.folder / "episode.mp4")
        self.assertEqual((code, "apt-get install ffmpeg" in said), (1, True), said)
        mujoco = self.run_folder("mujoco", [], environment='id: "InvertedPendulum-v5"',
                                 image=policy_image(4, 3.0))
        failed = subprocess.CompletedProcess([], 1, "", "no display")
        with mock.patch.dict(os.environ), mock.patch.object(subprocess, "run", return_value=failed):
            os.environ.pop("MUJOCO_GL", None)
            code, said = self.troupe("play", mujoco, "-o", self.folder / "episode.gif")
        self.assertEqual((code, "libosmesa6" in said and "no display" in said), (1, True), said)

    def test_a_policy_of_another_environment_is_refused(self):
        run = self.run_folder("run", [], environment='id: "CartPole-v1"')
        code, said = self.troupe("play", run, "-o", self.folder / "episode.gif")
        self.assertEqual((code, "but the policy sees 3" in said), (1, True), said)

    def test_velocities_are_hidden_in_play_as_they_were_in_training(self):
        run = self.run_folder("run", [], environment='id: "Pendulum-v1" hide_velocities: true',
                              image=policy_image(2, 2.0))
        code, said = self.troupe("play", run, "-o", self.folder / "a.gif", "--max_steps", 2)
        self.assertEqual(code, 0, said)

    def test_curves_of_several_runs_have_the_mean_and_spread_at_each_step(self):
        runs = [[evaluation(0, 0.0), evaluation(100, 10.0), evaluation(200, 20.0)],
                [evaluation(0, 10.0), evaluation(200, 30.0), evaluation(300, 99.0)]]
        points = learning_curve.spread_over_runs(runs)
        spread = 10 / np.sqrt(2)
        np.testing.assert_allclose(points, [(0, 5, spread), (100, 15, spread), (200, 25, spread)])

    def test_a_plot_is_a_picture(self):
        runs = [self.run_folder(f"run{i}", [evaluation(1000, -9.0), evaluation(2000, i)])
                for i in range(2)]
        for some in (runs[:1], runs):
            code, said = self.troupe("plot", *some, "-o", self.folder / "curve.png")
            self.assertEqual(code, 0, said)
            with Image.open(self.folder / "curve.png") as picture:
                self.assertEqual(picture.format, "PNG")
                self.assertGreater(np.asarray(picture.convert("L")).std(), 5)

    def test_wrong_use_exits_with_2_and_a_missing_run_with_1(self):
        with self.assertRaises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()):
            command.main(["export"])
        self.assertEqual(ended.exception.code, 2)
        with self.assertRaises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()):
            command.main(["export", "runs/a", "--shards", "127.0.0.1:1"])
        self.assertEqual(ended.exception.code, 2)
        code, said = self.troupe("export", "--shards", "127.0.0.1:1", "--timeout", "0.1")
        self.assertEqual((code, "127.0.0.1:1" in said), (1, True), said)
        code, said = self.troupe("export", self.folder / "nowhere")
        self.assertEqual((code, "nowhere" in said), (1, True), said)


if __name__ == "__main__":
    unittest.main()
