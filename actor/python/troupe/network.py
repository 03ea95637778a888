"""A policy's forward, written once for whoever computes it: numpy, ONNX, TorchScript.

The formulas are those of common/mlp.h, common/recurrent.h, common/image_encoder.h,
common/normalizer.h and common/policy_head.h.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from . import policy_metadata
from .policy_metadata import Encoder, PolicyMetadata

# What a step of the forward gives: an array, or the name of one in a graph.
Value = Any


class Steps(Protocol):
    """What a forward is made of; values are [B, n] and float32, those of choices int64."""

    def constant(self, name: str, array: np.ndarray) -> Value: ...
    def add(self, a: Value, b: Value) -> Value: ...
    def subtract(self, a: Value, b: Value) -> Value: ...
    def multiply(self, a: Value, b: Value) -> Value: ...
    def between(self, x: Value, low: Value, high: Value) -> Value: ...
    def linear(self, x: Value, weight: Value, bias: Value) -> Value: ...
    def layer_norm(self, x: Value, weight: Value, bias: Value, epsilon: float) -> Value: ...
    def activate(self, x: Value, function: str) -> Value: ...  # RELU, TANH, ELU, SIGMOID
    def columns(self, x: Value, begin: int, end: int) -> Value: ...
    def beside(self, parts: Sequence[Value]) -> Value: ...
    def largest(self, x: Value) -> Value: ...  # the first column with the largest number, [B, 1]
    # Of uint8 [B, frames, height, width, channels]: [B, frames * channels, height, width].
    def planes(self, images: Value, encoder: Encoder) -> Value: ...
    # `weight`: [out, in, size, size].
    def convolve(self, planes: Value, weight: Value, bias: Value, stride: int) -> Value: ...
    def flat(self, planes: Value) -> Value: ...


@dataclass(frozen=True)
class Seen:
    """What the network says of observations."""

    head: Value   # [B, head_size]
    state: Value  # what its memory is afterwards, [B, state_size]; None without one


LAYER_NORM_EPSILON = 1e-5
MEAN, STD, REWARD_STD = "normalizer.mean", "normalizer.std", "normalizer.reward_std"


def parameter_shapes(metadata: PolicyMetadata) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a policy must have."""
    shapes: dict[str, tuple[int, ...]] = {}
    inputs = metadata.inputs + metadata.recurrence.output_size
    for i, units in enumerate(metadata.network.hidden_sizes):
        shapes[f"actor.hidden.{i}.weight"] = (inputs, units)
        shapes[f"actor.hidden.{i}.bias"] = (units,)
        if metadata.network.layer_norm:
            shapes[f"actor.norm.{i}.weight"] = shapes[f"actor.norm.{i}.bias"] = (units,)
        inputs = units
    shapes["actor.head.weight"] = (inputs, metadata.head_size)
    shapes["actor.head.bias"] = (metadata.head_size,)
    if metadata.recurrence.state_size:
        units = metadata.recurrence.units
        gates = units * (4 if metadata.recurrence.kind == "LSTM" else 3)
        shapes["actor.recurrent.input.weight"] = (metadata.inputs, gates)
        shapes["actor.recurrent.state.weight"] = (units, gates)
        shapes["actor.recurrent.input.bias"] = shapes["actor.recurrent.state.bias"] = (gates,)
    if metadata.encoder:
        shapes.update(_encoder_shapes(metadata, metadata.encoder))
    if metadata.distribution == policy_metadata.GAUSSIAN:
        shapes["actor.log_std"] = (metadata.action_size,)
    return shapes


def _encoder_shapes(metadata: PolicyMetadata, encoder: Encoder) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    planes, features = encoder.planes(), (encoder.features,)
    for i, layer in enumerate(encoder.layers):
        size = layer.kernel_size
        shapes[f"actor.encoder.conv.{i}.weight"] = (layer.channels, planes[i][0], size, size)
        shapes[f"actor.encoder.conv.{i}.bias"] = (layer.channels,)
    shapes["actor.encoder.linear.weight"] = (math.prod(planes[-1]), encoder.features)
    shapes["actor.encoder.linear.bias"] = features
    if metadata.distribution == policy_metadata.SQUASHED_GAUSSIAN:
        shapes["actor.encoder.norm.weight"] = shapes["actor.encoder.norm.bias"] = features
    return shapes


class Forward:
    """A policy's forward in `steps`."""

    def __init__(self, metadata: PolicyMetadata, tensors: Mapping[str, np.ndarray],
                 steps: Steps) -> None:
        self._metadata = metadata
        self._tensors = tensors
        self._steps = steps

    def see(self, observation: Value, state: Value = None, images: Value = None) -> Seen:
        """`observation`: [B, observation_size]; `state`: [B, state_size], of policies with one;
        `images`: uint8 [B, frames, height, width, channels], of those that see some."""
        x = self._normalized(observation) if self._metadata.observation_size else None
        if self._metadata.encoder:
            features = self._look(images, self._metadata.encoder)
            x = features if x is None else self._steps.beside([x, features])
        if self._metadata.recurrence.state_size:
            state = self._remember(x, state)
            x = self._steps.beside([x, self._output(state)])
        for i in range(len(self._metadata.network.hidden_sizes)):
            x = self._linear(x, f"actor.hidden.{i}")
            if self._metadata.network.layer_norm:
                x = self._steps.layer_norm(x, self._tensor(f"actor.norm.{i}.weight"),
                                           self._tensor(f"actor.norm.{i}.bias"),
                                           LAYER_NORM_EPSILON)
            x = self._steps.activate(x, self._metadata.network.activation)
        return Seen(self._linear(x, "actor.head"), state)

    def most_likely(self, head: Value) -> Value:
        """The mode, [B, action_size], as the distribution gives it: choices, or before any tanh and
        in units of half the range."""
        steps = self._steps
        if self._metadata.distribution != policy_metadata.CATEGORICAL:
            return steps.columns(head, 0, self._metadata.action_size)
        ends = np.cumsum(self._metadata.num_choices).tolist()
        return steps.beside([steps.largest(steps.columns(head, end - n, end))
                             for end, n in zip(ends, self._metadata.num_choices)])

    def for_environment(self, drawn: Value) -> Value:
        """What the environment gets of it: choices as they are, others within their bounds."""
        if self._metadata.distribution == policy_metadata.CATEGORICAL:
            return drawn
        action = self._steps.activate(drawn, "TANH") if self._metadata.is_squashed else drawn
        return self._steps.between(self.to_native_units(action),
                                   self._constant("low", np.array(self._metadata.action_low)),
                                   self._constant("high", np.array(self._metadata.action_high)))

    def to_native_units(self, action: Value) -> Value:
        """From (-1, 1) to the bounds, and beyond them for what is beyond."""
        low, high = np.array(self._metadata.action_low), np.array(self._metadata.action_high)
        half = 0.5 * (high - low)
        return self._steps.add(self._steps.multiply(action, self._constant("half_range", half)),
                               self._constant("middle", low + half))

    def _normalized(self, x: Value) -> Value:
        if MEAN not in self._tensors:
            return x
        inverse = self._constant("normalizer.inverse_std", np.float32(1) / self._tensors[STD])
        x = self._steps.multiply(self._steps.subtract(x, self._tensor(MEAN)), inverse)
        clip = self._metadata.observation_clip
        if clip > 0:
            x = self._steps.between(x, self._constant("normalizer.least", np.array([-clip])),
                                    self._constant("normalizer.most", np.array([clip])))
        return x

    def _look(self, images: Value, encoder: Encoder) -> Value:
        """Features of images."""
        steps = self._steps
        x = steps.multiply(steps.planes(images, encoder),
                           self._constant("encoder.scale", np.array([1 / 255])))
        for i, layer in enumerate(encoder.layers):
            name = f"actor.encoder.conv.{i}"
            x = steps.activate(steps.convolve(x, self._tensor(f"{name}.weight"),
                                              self._tensor(f"{name}.bias"), layer.stride), "RELU")
        x = self._linear(steps.flat(x), "actor.encoder.linear")
        if self._metadata.distribution != policy_metadata.SQUASHED_GAUSSIAN:
            return steps.activate(x, "RELU")
        x = steps.layer_norm(x, self._tensor("actor.encoder.norm.weight"),
                             self._tensor("actor.encoder.norm.bias"), LAYER_NORM_EPSILON)
        return steps.activate(x, "TANH")

    def _output(self, state: Value) -> Value:
        return self._steps.columns(state, 0, self._metadata.recurrence.units)

    def _remember(self, x: Value, state: Value) -> Value:
        """The state after `x`; PyTorch's gates and equations."""
        steps, units = self._steps, self._metadata.recurrence.units
        of_x = self._linear(x, "actor.recurrent.input")
        h = self._output(state)
        of_h = self._linear(h, "actor.recurrent.state")

        def gate(value: Value, i: int) -> Value:
            return steps.columns(value, i * units, (i + 1) * units)

        def sigmoid(i: int) -> Value:
            return steps.activate(steps.add(gate(of_x, i), gate(of_h, i)), "SIGMOID")

        if self._metadata.recurrence.kind == "GRU":
            r, z = sigmoid(0), sigmoid(1)
            n = steps.activate(steps.add(gate(of_x, 2), steps.multiply(r, gate(of_h, 2))), "TANH")
            return steps.add(n, steps.multiply(z, steps.subtract(h, n)))
        cell = steps.columns(state, units, 2 * units)
        i, f, o = sigmoid(0), sigmoid(1), sigmoid(3)
        g = steps.activate(steps.add(gate(of_x, 2), gate(of_h, 2)), "TANH")
        cell = steps.add(steps.multiply(f, cell), steps.multiply(i, g))
        return steps.beside([steps.multiply(o, steps.activate(cell, "TANH")), cell])

    def _linear(self, x: Value, name: str) -> Value:
        return self._steps.linear(x, self._tensor(f"{name}.weight"), self._tensor(f"{name}.bias"))

    def _tensor(self, name: str) -> Value:
        return self._steps.constant(name, self._tensors[name])

    def _constant(self, name: str, array: np.ndarray) -> Value:
        return self._steps.constant(name, array.astype(np.float32))
