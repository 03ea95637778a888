"""Policies as files of other programs: ONNX and TorchScript."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np

from . import network, policy_metadata, torchscript
from .policy import Policy

FORMATS = {"onnx": ".onnx", "torchscript": ".pt"}
# Of the action, against the same forward in numpy.
TOLERANCE = 1e-5
_OPSET, _IR_VERSION = 17, 8  # what onnxruntime 1.12 and newer read


class MissingPackage(RuntimeError):
    """Says which package is to be installed."""


def describe(policy: Policy) -> dict[str, Any]:
    """What a file says of the policy in it, and of what it takes and gives."""
    metadata = policy.metadata
    said: dict[str, Any] = {
        "run": metadata.run, "policy_version": metadata.version, "env_steps": metadata.env_steps,
        "updates": metadata.updates, "distribution": metadata.distribution}
    if metadata.distribution == policy_metadata.CATEGORICAL:
        action = "the most likely choice of each element, from 0"
        head = "logits of the choices, element by element"
        said["num_choices"] = list(metadata.num_choices)
    else:
        action = "the most likely action, in the environment's units, within its bounds"
        said["action_low"], said["action_high"] = metadata.action_low, metadata.action_high
        before = ", before tanh" if metadata.is_squashed else ""
        head = f"mean, in units of half the range{before}"
        if metadata.distribution == policy_metadata.SQUASHED_GAUSSIAN:
            head += (", then log std, to be clamped to "
                     f"{[metadata.log_std_min, metadata.log_std_max]}")
        else:
            said["log_std"] = policy.tensors["actor.log_std"].tolist()
    said["inputs"] = {}
    if metadata.observation_size:
        said["inputs"]["observation"] = "as the environment gives it; the normalizer is inside"
    if metadata.encoder:
        said["inputs"]["image"] = ("the last frames, uint8 [frame, height, width, channel], the "
                                   "oldest first; before an episode's first frame that one again")
    said["outputs"] = {"action": action, "head": f"what the network says: {head}"}
    if metadata.recurrence.state_size:
        said["inputs"]["state"] = "the last next_state; zeros when an episode begins"
        said["outputs"]["next_state"] = "for the next call"
    return said


def to_onnx(policy: Policy) -> bytes:
    """A model with a free batch size; MissingPackage if there is no package onnx."""
    try:
        from onnx import TensorProto, checker, helper

        from .onnx_steps import OnnxSteps
    except ImportError as error:
        raise MissingPackage(f"ONNX needs the Python package onnx ({error}): "
                             "pip install 'troupe[export]'") from error
    metadata, steps = policy.metadata, OnnxSteps()
    said = describe(policy)
    forward = network.Forward(metadata, policy.tensors, steps)
    seen = forward.see("observation", "state", "image")
    steps.name(forward.for_environment(forward.most_likely(seen.head)), "action")
    steps.name(seen.head, "head")
    if metadata.recurrence.state_size:
        steps.name(seen.state, "next_state")
    shapes: dict[str, tuple[int, ...]] = {
        "observation": (metadata.observation_size,), "action": (metadata.action_size,),
        "head": (metadata.head_size,), "state": (metadata.recurrence.state_size,),
        "next_state": (metadata.recurrence.state_size,),
        "image": metadata.encoder.stack_shape if metadata.encoder else ()}
    types = {"image": TensorProto.UINT8}
    if metadata.distribution == policy_metadata.CATEGORICAL:
        types["action"] = TensorProto.INT64

    def declare(values: dict[str, str]) -> list[Any]:
        return [helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT),
                                              ["batch", *shapes[name]], doc)
                for name, doc in values.items()]

    graph = helper.make_graph(steps.nodes, "policy", declare(said["inputs"]),
                              declare(said["outputs"]), steps.initializers)
    model = helper.make_model(graph, producer_name="troupe", ir_version=_IR_VERSION,
                              opset_imports=[helper.make_opsetid("", _OPSET)])
    helper.set_model_props(model, {f"troupe.{key}": value if isinstance(value, str) else
                                   json.dumps(value) for key, value in said.items()})
    checker.check_model(model, full_check=True)
    _check_onnx(policy, model)
    return model.SerializeToString()


def to_torchscript(policy: Policy) -> bytes:
    """A module whose forward(observation) gives the action; of policies with a memory
    forward(observation, state) gives the action and the next state; of those that see images they
    are an argument behind the observation.  The extra file troupe.json says the rest."""
    steps = torchscript.TorchScriptSteps()
    forward = network.Forward(policy.metadata, policy.tensors, steps)
    seen = forward.see("observation", "state", "image")
    action = forward.for_environment(forward.most_likely(seen.head))
    remembers = policy.metadata.recurrence.state_size > 0
    said = describe(policy)
    del said["outputs"]["head"]
    return torchscript.encode("Policy", list(said["inputs"]), steps,
                              [action, seen.state] if remembers else [action],
                              {"troupe.json": json.dumps(said, indent=2).encode()})


def export(policy: Policy, path: str | os.PathLike[str], file_format: str) -> None:
    """Writes the file, whole or not at all."""
    path = pathlib.Path(path)
    contents = to_onnx(policy) if file_format == "onnx" else to_torchscript(policy)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(contents)
    temporary.replace(path)


def _check_onnx(policy: Policy, model: Any) -> None:
    """Holds the graph against the policy in numpy, computed by onnx's own reference."""
    from onnx.reference import ReferenceEvaluator

    random = np.random.default_rng(0)
    n, metadata = 16, policy.metadata
    observations = random.standard_normal((n, metadata.observation_size), np.float32)
    state = random.uniform(-1, 1, (n, metadata.recurrence.state_size)).astype(np.float32)
    inputs = {"observation": observations, "state": state}
    if metadata.encoder:
        inputs["image"] = random.integers(0, 256, (n, *metadata.encoder.stack_shape), np.uint8)
    acted = policy.mode(observations, state, inputs.get("image"))
    with np.errstate(over="ignore"):  # of the reference's sigmoid
        outputs = ReferenceEvaluator(model).run(
            ["action"], {value.name: inputs[value.name] for value in model.graph.input})
    if not np.allclose(outputs[0], acted.action, rtol=TOLERANCE, atol=TOLERANCE):
        raise RuntimeError("the graph and the policy in numpy differ by "
                           f"{np.abs(outputs[0] - acted.action).max()}")
