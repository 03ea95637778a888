"""TorchScript files without PyTorch: a zip of the module's source, its tensors, and a pickle that
says which tensor is which (github.com/pytorch/pytorch, torch/csrc/jit/docs/serialization.md).
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from .policy_metadata import Encoder

# What every LibTorch since 1.0 reads: no operator here has changed its meaning since.
_FILE_VERSION = b"3\n"
_ALIGNMENT_BYTES = 64  # of tensors in the file, so that they can be mapped
_FLOAT = 6  # PyTorch's number of the type
_FUNCTIONS = {"RELU": "relu", "TANH": "tanh", "ELU": "elu", "SIGMOID": "sigmoid"}


class TorchScriptSteps:
    """network.Steps as lines of TorchScript; a value is the name of a variable."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tensors: dict[str, np.ndarray] = {}  # by attribute

    def constant(self, name: str, array: np.ndarray) -> str:
        attribute = name.replace(".", "_")
        self.tensors[attribute] = array
        return f"self.{attribute}"

    def add(self, a: str, b: str) -> str:
        return self._line(f"torch.add({a}, {b})")

    def subtract(self, a: str, b: str) -> str:
        return self._line(f"torch.sub({a}, {b})")

    def multiply(self, a: str, b: str) -> str:
        return self._line(f"torch.mul({a}, {b})")

    def between(self, x: str, low: str, high: str) -> str:
        return self._line(f"torch.minimum(torch.maximum({x}, {low}), {high})")

    def linear(self, x: str, weight: str, bias: str) -> str:
        return self._line(f"torch.addmm({bias}, {x}, {weight})")

    def layer_norm(self, x: str, weight: str, bias: str, epsilon: float) -> str:
        units = self.tensors[weight.removeprefix("self.")].size
        return self._line(f"torch.layer_norm({x}, [{units}], {weight}, {bias}, {epsilon})")

    def activate(self, x: str, function: str) -> str:
        return self._line(f"torch.{_FUNCTIONS[function]}({x})")

    def columns(self, x: str, begin: int, end: int) -> str:
        return self._line(f"torch.slice({x}, 1, {begin}, {end})")

    def beside(self, parts: Sequence[str]) -> str:
        return self._line(f"torch.cat([{', '.join(parts)}], 1)")

    def largest(self, x: str) -> str:
        return self._line(f"torch.argmax({x}, 1, True)")

    def planes(self, images: str, encoder: Encoder) -> str:
        channels, height, width = encoder.planes()[0]
        planes = self._line(f"torch.permute({images}, [0, 1, 4, 2, 3])")
        planes = self._line(f"torch.reshape({planes}, [-1, {channels}, {height}, {width}])")
        return self._line(f"torch.to({planes}, {_FLOAT})")

    def convolve(self, planes: str, weight: str, bias: str, stride: int) -> str:
        return self._line(f"torch.conv2d({planes}, {weight}, {bias}, [{stride}, {stride}])")

    def flat(self, planes: str) -> str:
        return self._line(f"torch.flatten({planes}, 1)")

    def _line(self, expression: str) -> str:
        name = f"x{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        return name


def encode(name: str, arguments: Sequence[str], steps: TorchScriptSteps, results: Sequence[str],
           extra_files: Mapping[str, bytes]) -> bytes:
    """The file of a module with one method, forward(arguments) -> results, all of them tensors.

    `extra_files` are what torch.jit.load gives for _extra_files.
    """
    source = _source(name, arguments, steps, results)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, f"{name}/data.pkl", _module_pickle(name, steps.tensors))
        _add(archive, f"{name}/code/__torch__.py", source.encode())
        for key, array in enumerate(steps.tensors.values()):
            _add(archive, f"{name}/data/{key}", np.ascontiguousarray(array, "<f4").tobytes())
        _add(archive, f"{name}/constants.pkl", b"\x80\x02).")  # an empty tuple
        for file, contents in extra_files.items():
            _add(archive, f"{name}/extra/{file}", contents)
        _add(archive, f"{name}/version", _FILE_VERSION)
    return buffer.getvalue()


def _source(name: str, arguments: Sequence[str], steps: TorchScriptSteps,
            results: Sequence[str]) -> str:
    given = "Tensor" if len(results) == 1 else f"Tuple[{', '.join(['Tensor'] * len(results))}]"
    lines = [f"class {name}(Module):",
             "  __parameters__ = []",
             f"  __buffers__ = [{''.join(f'{chr(34)}{a}{chr(34)}, ' for a in steps.tensors)}]",
             *[f"  {attribute} : Tensor" for attribute in steps.tensors],
             "  training : bool",
             f"  def forward(self: __torch__.{name},",
             *[f"    {argument}: Tensor," for argument in arguments[:-1]],
             f"    {arguments[-1]}: Tensor) -> {given}:",
             *[f"    {line}" for line in steps.lines],
             f"    return {results[0] if len(results) == 1 else '(' + ', '.join(results) + ')'}"]
    return "\n".join(lines) + "\n"


def _add(archive: zipfile.ZipFile, name: str, contents: bytes) -> None:
    """Stores it with its first byte at a multiple of the alignment, padded as PyTorch does."""
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    header_bytes = 30 + len(name.encode()) + 4
    begin = archive.fp.tell() + header_bytes  # type: ignore[union-attr]
    padding = -begin % _ALIGNMENT_BYTES
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(info, contents)


def _module_pickle(name: str, tensors: Mapping[str, np.ndarray]) -> bytes:
    """A module with these tensors, in the opcodes that LibTorch's own writer uses."""
    parts = [b"\x80\x02", _global("__torch__", name), b")\x81}("]
    for key, (attribute, array) in enumerate(tensors.items()):
        parts += [_text(attribute), _tensor(str(key), array)]
    parts += [_text("training"), b"\x89", b"ub."]
    return b"".join(parts)


def _tensor(key: str, array: np.ndarray) -> bytes:
    """torch._utils._rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, hooks)."""
    strides = [int(np.prod(array.shape[i + 1:])) for i in range(array.ndim)]
    storage = b"".join([b"(", _text("storage"), _global("torch", "FloatStorage"), _text(key),
                        _text("cpu"), _whole(array.size), b"tQ"])
    return b"".join([_global("torch._utils", "_rebuild_tensor_v2"), b"(", storage, _whole(0),
                     _tuple(array.shape), _tuple(strides), b"\x89",
                     _global("collections", "OrderedDict"), b")R", b"tR"])


def _tuple(numbers: Sequence[int]) -> bytes:
    return b"(" + b"".join(_whole(n) for n in numbers) + b"t"


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _whole(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)
