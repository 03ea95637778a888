"""A forward's steps as nodes of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from .policy_metadata import Encoder

_OPERATORS = {"RELU": "Relu", "TANH": "Tanh", "ELU": "Elu", "SIGMOID": "Sigmoid"}


class OnnxSteps:
    """network.Steps that grow a graph; a value is the name of an edge."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}

    @property
    def initializers(self) -> list[TensorProto]:
        return list(self._initializers.values())

    def constant(self, name: str, array: np.ndarray) -> str:
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def add(self, a: str, b: str) -> str:
        return self._node("Add", [a, b])

    def subtract(self, a: str, b: str) -> str:
        return self._node("Sub", [a, b])

    def multiply(self, a: str, b: str) -> str:
        return self._node("Mul", [a, b])

    def between(self, x: str, low: str, high: str) -> str:
        return self._node("Min", [self._node("Max", [x, low]), high])

    def linear(self, x: str, weight: str, bias: str) -> str:
        return self._node("Gemm", [x, weight, bias])

    def layer_norm(self, x: str, weight: str, bias: str, epsilon: float) -> str:
        return self._node("LayerNormalization", [x, weight, bias], epsilon=epsilon, axis=-1)

    def activate(self, x: str, function: str) -> str:
        return self._node(_OPERATORS[function], [x])

    def columns(self, x: str, begin: int, end: int) -> str:
        numbers = [self.constant(f"number.{n}", np.array([n], np.int64)) for n in (begin, end, 1)]
        return self._node("Slice", [x, *numbers])

    def beside(self, parts: Sequence[str]) -> str:
        return self._node("Concat", list(parts), axis=1)

    def largest(self, x: str) -> str:
        return self._node("ArgMax", [x], axis=1, keepdims=1)

    def planes(self, images: str, encoder: Encoder) -> str:
        planes = self._node("Transpose", [images], perm=[0, 1, 4, 2, 3])
        channels, height, width = encoder.planes()[0]
        shape = self.constant("encoder.shape", np.array([-1, channels, height, width], np.int64))
        return self._node("Cast", [self._node("Reshape", [planes, shape])], to=TensorProto.FLOAT)

    def convolve(self, planes: str, weight: str, bias: str, stride: int) -> str:
        return self._node("Conv", [planes, weight, bias], strides=[stride, stride])

    def flat(self, planes: str) -> str:
        return self._node("Flatten", [planes], axis=1)

    def name(self, x: str, name: str) -> None:
        """Gives a value the name of an output."""
        self.nodes.append(helper.make_node("Identity", [x], [name], name=f"output.{name}"))

    def _node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name
