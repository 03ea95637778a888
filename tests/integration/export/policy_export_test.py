"""Policies outside of Troupe's programs: numpy, ONNX (onnxruntime) and TorchScript (LibTorch, C++)
must act as the actor itself does, policy_forward.cc, to 1e-5.

    policy_export_test.py POLICY_FORWARD [-v]
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import zipfile

import numpy as np
import onnx
import onnxruntime

from troupe import checkpoint, export, safetensors
from troupe.policy import Policy

TOLERANCE = 1e-5
KINDS = ("sac", "sac_layer_norm", "sac_gru", "ppo_clipped", "ppo_squashed", "ppo_lstm",
         "ppo_choice", "ppo_choices", "sac_pixels", "ppo_pixels")
ROWS = 64


def forward(*words):
    subprocess.run([POLICY_FORWARD, *[str(word) for word in words]], check=True)


class PolicyExportTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = pathlib.Path(cls.temporary.name)
        forward("make", cls.folder)
        random = np.random.default_rng(5)
        cls.policies, cls.inputs, cls.acted = {}, {}, {}
        for kind in KINDS:
            image = cls.folder / f"{kind}.safetensors"
            policy = Policy.from_image(image.read_bytes())
            cls.policies[kind] = policy
            metadata = policy.metadata
            observations = random.normal(0, 2, (ROWS, metadata.observation_size))
            states = random.uniform(-1, 1, (ROWS, metadata.recurrence.state_size))
            images = random.integers(0, 256, (ROWS, *metadata.encoder.stack_shape), np.uint8) if (
                metadata.encoder) else None
            cls.inputs[kind] = observations.astype(np.float32), states.astype(np.float32), images
            cls.acted[kind] = cls.act(kind, *cls.inputs[kind])

    @classmethod
    def act(cls, kind, *inputs):
        """What the actor's forward gives for these inputs."""
        n, out = len(inputs[0]), cls.folder / "out"
        forward("act", n, cls.folder / f"{kind}.safetensors", cls.write(inputs), out)
        values = np.fromfile(out, np.float32)
        actions, states = cls.policies[kind].metadata.action_size, inputs[1].shape[1]
        parts = np.split(values, np.cumsum([n * size for size in
                                            (actions, states, actions, actions, 1)]))
        names = ("mode", "state", "env", "row", "log_prob", "drawn_state")
        return {name: part.reshape(n, -1) for name, part in zip(names, parts)}

    @classmethod
    def write(cls, inputs):
        path = cls.folder / "in"
        path.write_bytes(b"".join(x.tobytes() for x in inputs if x is not None))
        return path

    def assert_close(self, ours, actors, what):
        self.assertEqual(ours.shape, actors.shape, what)
        np.testing.assert_allclose(ours, actors, rtol=TOLERANCE, atol=TOLERANCE, err_msg=what)

    def test_a_policy_in_numpy_acts_as_the_actor_does(self):
        for kind in KINDS:
            with self.subTest(kind):
                ours = self.policies[kind].mode(*self.inputs[kind])
                self.assert_close(ours.action, self.acted[kind]["mode"], "mode")
                self.assert_close(ours.state, self.acted[kind]["state"], "state")
                self.assertGreater(np.ptp(ours.action), 0.1, "all actions are alike")

    def test_draws_have_the_actors_distribution(self):
        """Of one observation: means and spreads of many draws of both, and their densities."""
        for kind in KINDS:
            with self.subTest(kind):
                policy = Policy.load(self.folder / f"{kind}.safetensors", seed=3)
                n = 20000
                # Small ones, so that tanh does not saturate.
                observations, states, images = self.inputs[kind]
                inputs = [np.repeat(x[:1], n, axis=0) if x is not None else None
                          for x in (observations / 10, states / 10, images)]
                ours, theirs = policy.sample(*inputs), self.act(kind, *inputs)
                rows = theirs["row"]
                spread = rows.std(axis=0) + 1e-3
                np.testing.assert_allclose(ours.row.mean(axis=0) / spread,
                                           rows.mean(axis=0) / spread, atol=0.05)
                np.testing.assert_allclose(ours.row.std(axis=0) / spread,
                                           rows.std(axis=0) / spread, atol=0.05)
                np.testing.assert_allclose(ours.action.mean(axis=0) / spread,
                                           theirs["env"].mean(axis=0) / spread, atol=0.05)
                difference = ours.log_prob.mean() - theirs["log_prob"].mean()
                self.assertLess(abs(difference), 0.05 * (ours.log_prob.std() + 0.1))

    def test_an_onnx_model_acts_as_the_actor_does_in_batches_of_any_size(self):
        for kind in KINDS:
            with self.subTest(kind):
                path = self.folder / f"{kind}.onnx"
                export.export(self.policies[kind], path, "onnx")
                onnx.checker.check_model(str(path), full_check=True)
                session = onnxruntime.InferenceSession(str(path),
                                                       providers=["CPUExecutionProvider"])
                for n in (1, ROWS):
                    values = {name: x[:n] for name, x in zip(
                        ("observation", "state", "image"), self.inputs[kind]) if x is not None}
                    names = [value.name for value in session.get_inputs()]
                    outputs = [value.name for value in session.get_outputs()]
                    results = dict(zip(outputs, session.run(None, {k: values[k] for k in names})))
                    self.assert_close(results["action"], self.acted[kind]["mode"][:n], "action")
                    remembers = values["state"].shape[1] > 0
                    self.assertEqual("next_state" in results, remembers)
                    if remembers:
                        self.assert_close(results["next_state"], self.acted[kind]["state"][:n],
                                          "state")

    def test_an_onnx_model_says_what_it_is(self):
        model = onnx.load_from_string(export.to_onnx(self.policies["sac_gru"]))
        said = {entry.key: entry.value for entry in model.metadata_props}
        self.assertEqual(said["troupe.run"], "export_test")
        self.assertEqual(said["troupe.policy_version"], str((1 << 40) + 7))
        self.assertEqual(json.loads(said["troupe.action_high"]), [1, 3, 0.75])
        self.assertEqual(set(json.loads(said["troupe.inputs"])), {"observation", "state"})
        self.assertEqual({o.name for o in model.graph.output}, {"action", "head", "next_state"})

    def test_a_torchscript_file_acts_as_the_actor_does(self):
        for kind in KINDS:
            with self.subTest(kind):
                path, out = self.folder / f"{kind}.pt", self.folder / "out"
                export.export(self.policies[kind], path, "torchscript")
                forward("torchscript", ROWS, self.folder / f"{kind}.safetensors",
                        self.write(self.inputs[kind]), out, path)
                values = np.fromfile(out, np.float32)
                size = self.policies[kind].metadata.action_size
                self.assert_close(values[:ROWS * size].reshape(ROWS, -1),
                                  self.acted[kind]["mode"], "action")
                self.assert_close(values[ROWS * size:].reshape(ROWS, -1),
                                  self.acted[kind]["state"], "state")

    def test_tensors_in_a_torchscript_file_are_aligned_and_it_says_what_it_is(self):
        path = self.folder / "aligned.pt"
        export.export(self.policies["sac"], path, "torchscript")
        with zipfile.ZipFile(path) as archive:
            said = json.loads(archive.read("Policy/extra/troupe.json"))
            self.assertEqual(said["run"], "export_test")
            for info in archive.infolist():
                name_and_extra = path.read_bytes()[info.header_offset + 26:][:4]
                begin = info.header_offset + 30 + sum(np.frombuffer(name_and_extra, np.uint16))
                self.assertEqual(begin % 64, 0, info.filename)

    def test_a_policy_that_is_not_whole_is_refused_and_named(self):
        image = safetensors.parse((self.folder / "sac_gru.safetensors").read_bytes())
        weight = "actor.hidden.1.weight"
        bad = {
            "no tensor": ({k: v for k, v in image.tensors.items() if k != weight}, {}),
            "expected float32": ({**image.tensors, weight: np.zeros((3, 3), np.float32)}, {}),
            "not finite": ({**image.tensors,
                            weight: np.full_like(image.tensors[weight], np.nan)}, {}),
            "not of the policy": ({**image.tensors, "actor.more": np.zeros(1, np.float32)}, {}),
            "'action_size'": (image.tensors, {"action_size": "-3"}),
            "'action_low'": (image.tensors, {"action_low": "[1, 2]"}),
            "'network'": (image.tensors, {"network": '{"hiddenSizes":[0]}'}),
            "'recurrence'": (image.tensors, {"recurrence": '{"kind":"GRU","units":-1}'}),
            "'format'": (image.tensors, {"format": "troupe.policy.1"}),
            "'image_shape'": (image.tensors, {"image_shape": "[0, 3, 3]"}),
            "'encoder'": (image.tensors, {"image_shape": "[4, 4, 1]", "encoder": "{}"}),
            "'log_std_min'": (image.tensors, {"log_std_min": "3"}),
        }
        for what, (tensors, changed) in bad.items():
            with self.subTest(what), self.assertRaisesRegex(ValueError, what):
                Policy.from_image(safetensors.encode(tensors, {**image.metadata, **changed}))

    def test_a_policy_with_a_memory_asks_for_its_state(self):
        with self.assertRaisesRegex(ValueError, "initial_state"):
            self.policies["sac_gru"].mode(self.inputs["sac_gru"][0])
        with self.assertRaisesRegex(ValueError, r"expected \[n, 5\]"):
            self.policies["sac"].mode(np.zeros((2, 4)))

    def test_observations_that_are_no_numbers_give_no_actions(self):
        with self.assertRaisesRegex(ValueError, "not numbers"):
            self.policies["sac"].mode(np.full((1, 5), np.nan, np.float32))

    def test_images_of_another_shape_are_refused(self):
        policy, images = self.policies["sac_pixels"], self.inputs["sac_pixels"][2]
        for bad in (None, images[:, :1], images.astype(np.float32)):
            with self.assertRaisesRegex(ValueError, "expected uint8"):
                policy.mode(self.inputs["sac_pixels"][0], images=bad)

    def test_a_checkpoints_policy_is_the_one_that_it_holds(self):
        image = (self.folder / "sac.safetensors").read_bytes()
        run = self.folder / "run"
        checkpoint.write(run / "checkpoints", checkpoint.Checkpoint(
            7, {"env_steps": 9}, {checkpoint.POLICY_FILE: image}))
        self.assertEqual(Policy.load(run).metadata, self.policies["sac"].metadata)


if __name__ == "__main__":
    POLICY_FORWARD = sys.argv.pop(1)
    unittest.main()
