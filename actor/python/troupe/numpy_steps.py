"""A forward's steps, computed by numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .policy_metadata import Encoder

Array = np.ndarray


class NumpySteps:
    """network.Steps on arrays."""

    def constant(self, name: str, array: Array) -> Array:
        return array

    def add(self, a: Array, b: Array) -> Array:
        return a + b

    def subtract(self, a: Array, b: Array) -> Array:
        return a - b

    def multiply(self, a: Array, b: Array) -> Array:
        return a * b

    def between(self, x: Array, low: Array, high: Array) -> Array:
        return np.clip(x, low, high)

    def linear(self, x: Array, weight: Array, bias: Array) -> Array:
        return x @ weight + bias

    def layer_norm(self, x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
        centered = x - x.mean(axis=1, keepdims=True)
        variance = np.square(centered).mean(axis=1, keepdims=True)
        return centered / np.sqrt(variance + np.float32(epsilon)) * weight + bias

    def activate(self, x: Array, function: str) -> Array:
        if function == "TANH":
            return np.tanh(x)
        if function == "ELU":
            return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
        if function == "SIGMOID":
            return np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1))
        return np.maximum(x, 0)

    def columns(self, x: Array, begin: int, end: int) -> Array:
        return x[:, begin:end]

    def beside(self, parts: Sequence[Array]) -> Array:
        return np.concatenate(parts, axis=1)

    def largest(self, x: Array) -> Array:
        return x.argmax(axis=1, keepdims=True)

    def planes(self, images: Array, encoder: Encoder) -> Array:
        planes = images.transpose(0, 1, 4, 2, 3).astype(np.float32)
        return planes.reshape(len(images), -1, encoder.height, encoder.width)

    def convolve(self, planes: Array, weight: Array, bias: Array, stride: int) -> Array:
        windows = np.lib.stride_tricks.sliding_window_view(planes, weight.shape[2:], axis=(2, 3))
        windows = windows[:, :, ::stride, ::stride]
        sums = np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3))) + bias
        return sums.transpose(0, 3, 1, 2)

    def flat(self, planes: Array) -> Array:
        return planes.reshape(len(planes), -1)
