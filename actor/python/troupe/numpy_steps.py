"""A forward's steps, computed by numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
