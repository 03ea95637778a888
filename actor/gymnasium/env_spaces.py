"""Observations and actions of Gymnasium's spaces, as numbers and images in memory.

With env_vector.py and env_child.py, which follow it, one program: an actor hands Python all three at once.
"""
import ctypes
import importlib
import json
import mmap
import os
import signal
import socket
import sys
import threading
import traceback

CHANNEL = socket.socket(fileno=3)

try:
    import gymnasium
    import numpy as np
    from gymnasium import spaces
except ImportError:
    CHANNEL.send(b"e" + traceback.format_exc().encode())
    sys.exit(1)


RESET = 0x8000  # SharedSlots::kReset: the bit of a command for a slot that begins an episode there


class FaultyEnvironment(Exception):
    """An environment that does not keep to its own spaces, or to Gymnasium's interface."""


def not_five(result):
    values = f"{len(result)} values" if isinstance(result, tuple) else str(type(result))
    return FaultyEnvironment(f"step() gave {values}, Gymnasium's gives 5: observation, reward, "
                             "terminated, truncated, info")


def same_kind(value, dtype, name):
    if not np.can_cast(value.dtype, dtype, "same_kind"):
        raise FaultyEnvironment(f"{name} is {value.dtype}, its space says {dtype}")


class BoxLeaf:
    """Numbers, flattened; images are kept as bytes."""

    def __init__(self, name, space, path):
        self.name, self.path, self.shape, self.dtype = name, path, space.shape, space.dtype
        self.is_image = space.dtype == np.uint8 and len(space.shape) in (2, 3)
        self.size = int(np.prod(space.shape, dtype=np.int64))
        if self.size == 0:
            raise FaultyEnvironment(f"{name} has no elements: shape {space.shape}")

    def stored_shape(self):
        if self.is_image:
            return list(self.shape) + [1] * (3 - len(self.shape))
        return list(self.shape) or [1]

    def write(self, value, view):
        # The common case first: every step comes here.
        if type(value) is not np.ndarray or value.shape != self.shape or (
                value.dtype is not self.dtype):
            value = np.asarray(value)
            if value.shape != self.shape:
                raise FaultyEnvironment(
                    f"{self.name} has the shape {value.shape}, its space says {self.shape}")
            same_kind(value, self.dtype, self.name)
        view[...] = value

    def write_all(self, value, view):
        """The same of all members of a vector environment."""
        value = np.asarray(value)
        if value.shape != view.shape:
            raise FaultyEnvironment(
                f"{self.name} of {len(view)} environments has the shape {value.shape}, its space "
                f"says {self.shape}")
        same_kind(value, self.dtype, self.name)
        view[...] = value


class OneHotLeaf:
    """Discrete and MultiDiscrete: one number a choice, 1 for the one taken."""

    is_image = False

    def __init__(self, name, space, path):
        self.name, self.path = name, path
        self.choices = np.atleast_1d(
            space.n if isinstance(space, spaces.Discrete) else space.nvec).astype(np.int64).ravel()
        self.start = np.broadcast_to(np.ravel(space.start), self.choices.shape)
        self.first = np.concatenate(([0], np.cumsum(self.choices)[:-1]))
        self.size = int(self.choices.sum())
        self.shape = (self.size,)

    def stored_shape(self):
        return [self.size]

    def write(self, value, view):
        value = np.asarray(value)
        same_kind(value, np.int64, self.name)
        chosen = value.ravel() - self.start
        if chosen.shape != self.choices.shape or np.any(chosen < 0) or np.any(
                chosen >= self.choices):
            raise FaultyEnvironment(f"{self.name} is {value}, its space has {self.choices} choices"
                                    f" from {self.start} on")
        view[...] = 0
        view[self.first + chosen] = 1


class BinaryLeaf:
    """MultiBinary: 0 and 1."""

    is_image = False

    def __init__(self, name, space, path):
        self.name, self.path, self.shape = name, path, space.shape
        self.size = int(np.prod(space.shape))

    def stored_shape(self):
        return list(self.shape)

    def write(self, value, view):
        value = np.asarray(value)
        if value.shape != self.shape:
            raise FaultyEnvironment(
                f"{self.name} has the shape {value.shape}, its space says {self.shape}")
        view[...] = value


def leaves_of(space, name="observation", path=()):
    """The parts of an observation space that are one column each."""
    if isinstance(space, spaces.Box):
        return [BoxLeaf(name, space, path)]
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return [OneHotLeaf(name, space, path)]
    if isinstance(space, spaces.MultiBinary):
        return [BinaryLeaf(name, space, path)]
    if isinstance(space, spaces.Dict):
        parts = space.spaces.items()
    elif isinstance(space, spaces.Tuple):
        parts = enumerate(space.spaces)
    else:
        raise FaultyEnvironment(
            f"{name} is in a space of {type(space).__name__}; Troupe knows Box, Discrete, "
            "MultiDiscrete, MultiBinary, Dict and Tuple")
    return [leaf for key, part in parts for leaf in leaves_of(part, f"{name}.{key}", (*path, key))]


def at(value, path):
    for key in path:
        value = value[key]
    return value


class BoxAction:
    """Numbers.  `size` of them are read from a view of float64."""

    def __init__(self, space):
        self.shape, self.dtype = space.shape, space.dtype
        self.size = int(np.prod(space.shape, dtype=np.int64))
        self.description = {
            "low": [float(x) if np.isfinite(x) else None for x in np.ravel(space.low)],
            "high": [float(x) if np.isfinite(x) else None for x in np.ravel(space.high)]}

    def reader(self, view):
        """What gives the action that stands in `view`, [size]."""
        astype, dtype, shape = view.astype, self.dtype, self.shape
        if len(shape) == 1:
            return lambda: astype(dtype)
        return lambda: astype(dtype).reshape(shape)

    def read_all(self, view):
        """The actions of a vector environment, [num_envs, size]."""
        return view.astype(self.dtype).reshape(len(view), *self.shape)


class ChosenAction:
    """Discrete, MultiDiscrete and MultiBinary."""

    def __init__(self, space):
        self.dtype, self.shape = space.dtype, space.shape
        if isinstance(space, spaces.MultiBinary):
            choices, self.start = np.full(space.shape, 2), 0
        elif isinstance(space, spaces.Discrete):
            choices, self.start = np.array([space.n]), int(space.start)
        else:
            choices, self.start = space.nvec, np.ravel(space.start)
        self.size = int(np.size(choices))
        self.description = {"choices": [int(n) for n in np.ravel(choices)]}
        self.is_one = isinstance(space, spaces.Discrete)

    def reader(self, view):
        if self.is_one:
            number, of_dtype, start = memoryview(view), self.dtype.type, self.start
            return lambda: of_dtype(int(number[0]) + start)
        return lambda: self._choices(view).reshape(self.shape)

    def read_all(self, view):
        return self._choices(view).reshape(len(view), *self.shape)

    def _choices(self, view):
        return (view.astype(np.int64) + self.start).astype(self.dtype)


class CompoundAction:
    """Dict and Tuple of spaces that are all continuous, or all choices: one after the other."""

    def __init__(self, parts, make):
        self._parts, self._make, begin = [], make, 0
        self.description = {}
        for action in parts:
            self._parts.append((action, begin, begin + action.size))
            begin += action.size
            for key, numbers in action.description.items():
                self.description.setdefault(key, []).extend(numbers)
        self.size = begin
        if "choices" in self.description and len(self.description) > 1:
            raise FaultyEnvironment(
                "actions are numbers and choices at once; Troupe's policies give either (Boxes "
                "alone, or Discrete, MultiDiscrete and MultiBinary alone): wrap the environment")

    def reader(self, view):
        readers, make = [part.reader(view[begin:end]) for part, begin, end in self._parts], self._make
        return lambda: make([read() for read in readers])

    def read_all(self, view):
        return self._make([part.read_all(view[:, begin:end]) for part, begin, end in self._parts])


def action_of(space):
    if isinstance(space, spaces.Box):
        return BoxAction(space)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return ChosenAction(space)
    if isinstance(space, spaces.Dict):
        names = list(space.spaces)
        return CompoundAction([action_of(part) for part in space.spaces.values()],
                              lambda values: dict(zip(names, values)))
    if isinstance(space, spaces.Tuple):
        return CompoundAction([action_of(part) for part in space.spaces], tuple)
    raise FaultyEnvironment(f"actions are in a space of {type(space).__name__}; Troupe knows Box, "
                            "Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of those")
