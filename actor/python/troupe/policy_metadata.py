"""What a policy says of itself in the metadata of its image (common/policy.h)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FORMAT = "troupe.policy.2"
SQUASHED_GAUSSIAN, GAUSSIAN, CATEGORICAL = "squashed_gaussian", "gaussian", "categorical"
_MAX_SIZE = 1 << 24
_MAX_CHOICES = 65536
_MAX_UNITS = 65536
_MAX_HIDDEN_LAYERS = 64
_MAX_IMAGE_AXIS = 65536
_MAX_ACTIVATIONS = 1 << 26  # of one layer for one stack of images


@dataclass(frozen=True)
class Network:
    """A multi-layer perceptron."""

    hidden_sizes: tuple[int, ...]
    activation: str = "RELU"  # or TANH, ELU
    layer_norm: bool = False


@dataclass(frozen=True)
class Recurrence:
    """A recurrent layer in front of it."""

    kind: str = "NO_RECURRENCE"  # or GRU, LSTM
    units: int = 0

    @property
    def state_size(self) -> int:
        """Numbers of one state: a GRU's output, or an LSTM's output and then its cell."""
        return {"GRU": 1, "LSTM": 2}.get(self.kind, 0) * self.units

    @property
    def output_size(self) -> int:
        return self.units if self.state_size else 0


@dataclass(frozen=True)
class Convolution:
    """One convolution, without padding, and a ReLU."""

    channels: int
    kernel_size: int
    stride: int

    def places(self, length: int) -> int:
        return 0 if length < self.kernel_size else (length - self.kernel_size) // self.stride + 1


@dataclass(frozen=True)
class Encoder:
    """What makes features of stacks of images."""

    height: int  # of one frame
    width: int
    channels: int
    frame_stack: int
    layers: tuple[Convolution, ...]
    features: int

    @property
    def stack_shape(self) -> tuple[int, int, int, int]:
        return self.frame_stack, self.height, self.width, self.channels

    def planes(self) -> list[tuple[int, int, int]]:
        """Channels, height and width: of what goes in, and behind each layer."""
        planes = [(self.frame_stack * self.channels, self.height, self.width)]
        for layer in self.layers:
            _, height, width = planes[-1]
            planes.append((layer.channels, layer.places(height), layer.places(width)))
        return planes


@dataclass(frozen=True)
class PolicyMetadata:
    """Which network it is, and when it was published."""

    run: str
    version: int    # (epoch << 40) | counter
    env_steps: int  # of the run, when it was published
    updates: int    # gradient steps behind it
    warmup: bool    # actors explore uniformly at random within the bounds
    final: bool     # the run is over
    observation_size: int  # of the vector; may be 0 where there are images
    action_size: int
    distribution: str
    network: Network
    recurrence: Recurrence
    observation_clip: float              # of normalized observations; 0: none
    action_low: tuple[float, ...] = ()   # native units; of Gaussians
    action_high: tuple[float, ...] = ()
    num_choices: tuple[int, ...] = ()    # of each element; categorical
    log_std_min: float = 0.0             # of the squashed Gaussian
    log_std_max: float = 0.0
    squash: bool = False                 # gaussian: through tanh, not clipped to the bounds
    encoder: Encoder | None = None       # of images; none: it sees none

    @property
    def head_size(self) -> int:
        """Numbers that the network gives."""
        if self.distribution == CATEGORICAL:
            return sum(self.num_choices)
        return self.action_size * (2 if self.distribution == SQUASHED_GAUSSIAN else 1)

    @property
    def inputs(self) -> int:
        """Numbers that the memory, or else the perceptron, sees."""
        return self.observation_size + (self.encoder.features if self.encoder else 0)

    @property
    def is_squashed(self) -> bool:
        return self.distribution == SQUASHED_GAUSSIAN or self.squash


def parse(metadata: Mapping[str, str]) -> PolicyMetadata:
    """Every number is checked; ValueError names the key, what is there and what was expected."""
    reader = _Reader(metadata)
    if reader.text("format") != FORMAT:
        raise reader.fault("format", FORMAT)
    distribution = reader.text("distribution")
    action_size = reader.whole("action_size", 1, _MAX_SIZE)
    return PolicyMetadata(
        run=reader.text("run"), version=reader.whole("version", 0, (1 << 64) - 1),
        env_steps=reader.whole("env_steps"), updates=reader.whole("updates"),
        warmup=reader.whole("warmup", 0, 1) == 1, final=reader.whole("final", 0, 1) == 1,
        observation_size=reader.whole("observation_size", 0 if "image_shape" in metadata else 1,
                                      _MAX_SIZE),
        action_size=action_size, encoder=reader.encoder(),
        distribution=distribution, network=reader.network(), recurrence=reader.recurrence(),
        observation_clip=reader.number("observation_clip", 0),
        **_of_distribution(reader, distribution, action_size))


def _of_distribution(reader: _Reader, distribution: str, size: int) -> dict[str, Any]:
    if distribution == CATEGORICAL:
        choices = reader.numbers("num_choices", size)
        if not all(n == math.floor(n) and 1 <= n <= _MAX_CHOICES for n in choices):
            raise reader.fault("num_choices", f"1 to {_MAX_CHOICES} each")
        return {"num_choices": tuple(int(n) for n in choices)}
    if distribution not in (SQUASHED_GAUSSIAN, GAUSSIAN):
        raise reader.fault("distribution", f"{SQUASHED_GAUSSIAN}, {GAUSSIAN} or {CATEGORICAL}")
    low, high = reader.numbers("action_low", size), reader.numbers("action_high", size)
    if not all(a < b for a, b in zip(low, high)):
        raise reader.fault("action_low", "less than action_high, element by element")
    bounds: dict[str, Any] = {"action_low": low, "action_high": high}
    if distribution == GAUSSIAN:
        return {**bounds, "squash": reader.whole("squash", 0, 1) == 1}
    least, most = reader.number("log_std_min"), reader.number("log_std_max")
    if least > most:
        raise reader.fault("log_std_min", "at most log_std_max")
    return {**bounds, "log_std_min": least, "log_std_max": most}


class _Reader:
    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._metadata = metadata

    def fault(self, key: str, wanted: str) -> ValueError:
        return ValueError(f"policy metadata '{key}' is '{self._metadata.get(key, '')[:100]}', "
                          f"expected {wanted}")

    def text(self, key: str) -> str:
        if key not in self._metadata:
            raise ValueError(f"no policy metadata '{key}'")
        return self._metadata[key]

    def whole(self, key: str, least: int = 0, most: int = (1 << 63) - 1) -> int:
        text = self.text(key)
        if not (text.isascii() and text.isdigit()) or not least <= int(text[:20]) <= most:
            raise self.fault(key, f"a whole number from {least} to {most}")
        return int(text)

    def number(self, key: str, least: float = -math.inf) -> float:
        try:
            value = float(self.text(key))
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            raise self.fault(key, "a number" if least < 0 else f"{least} or more")
        return value

    def json(self, key: str) -> Any:
        try:
            return json.loads(self.text(key))
        except (json.JSONDecodeError, RecursionError):
            raise self.fault(key, "JSON") from None

    def numbers(self, key: str, size: int) -> tuple[float, ...]:
        values = self.json(key)
        good = isinstance(values, list) and len(values) == size and all(
            type(v) in (int, float) and math.isfinite(v) for v in values)
        if not good:
            raise self.fault(key, f"{size} numbers")
        return tuple(float(v) for v in values)

    def network(self) -> Network:
        """troupe.proto.Mlp as JSON; what is not there has its default."""
        spec = self.json("network")
        sizes: Any = spec.get("hiddenSizes", []) if isinstance(spec, dict) else None
        good = isinstance(sizes, list) and len(sizes) <= _MAX_HIDDEN_LAYERS and all(
            type(n) is int and 1 <= n <= _MAX_UNITS for n in sizes)
        if not good or spec.get("activation", "RELU") not in ("RELU", "TANH", "ELU"):
            raise self.fault("network", "a network")
        return Network(tuple(sizes), spec.get("activation", "RELU"),
                       spec.get("layerNorm", False) is True)

    def recurrence(self) -> Recurrence:
        if "recurrence" not in self._metadata:
            return Recurrence()
        spec = self.json("recurrence")
        units = spec.get("units", 64) if isinstance(spec, dict) else None
        if type(units) is not int or not 1 <= units <= _MAX_UNITS or (
                spec.get("kind") not in ("GRU", "LSTM")):
            raise self.fault("recurrence", "a recurrent layer")
        return Recurrence(spec["kind"], units)

    def encoder(self) -> Encoder | None:
        """troupe.proto.ImageEncoder as JSON, of images of image_shape."""
        if "image_shape" not in self._metadata:
            return None
        shape = self.numbers("image_shape", 3)
        if not all(n == math.floor(n) and 1 <= n <= _MAX_IMAGE_AXIS for n in shape):
            raise self.fault("image_shape", f"three whole numbers from 1 to {_MAX_IMAGE_AXIS}")
        spec = self.json("encoder")
        height, width, channels = (int(n) for n in shape)
        encoder = Encoder(height, width, channels,
                          frame_stack=self._count(spec, "frameStack", 64, default=1),
                          layers=self._layers(spec.get("layers")),
                          features=self._count(spec, "features", _MAX_UNITS))
        if not all(1 <= math.prod(planes) <= _MAX_ACTIVATIONS for planes in encoder.planes()):
            raise self.fault("encoder", f"one that fits images of {height}x{width}")
        return encoder

    def _layers(self, layers: Any) -> tuple[Convolution, ...]:
        if not isinstance(layers, list) or not 1 <= len(layers) <= _MAX_HIDDEN_LAYERS:
            raise self.fault("encoder", f"1 to {_MAX_HIDDEN_LAYERS} layers")
        return tuple(Convolution(self._count(layer, "channels", 4096, default=32),
                                 self._count(layer, "kernelSize", 64, default=3),
                                 self._count(layer, "stride", 64, default=1)) for layer in layers)

    def _count(self, spec: Any, key: str, most: int, default: int = 0) -> int:
        value = spec.get(key, default) if isinstance(spec, dict) else None
        if type(value) is not int or not 1 <= value <= most:
            raise self.fault("encoder", f"{key} from 1 to {most}")
        return value
