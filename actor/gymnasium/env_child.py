"""Steps Gymnasium environments for an actor that shares memory with this process.

The actor starts it with the socket as file 3 and this program as file 4, and as its argument a JSON
object: id, kwargs, module, max_episode_steps, num_slots.  Each slot is one environment.

Messages, one datagram each:
  to the actor    {"action": ..., "columns": ..., "images": ...}: what the environments are like
  from the actor  {"offsets": ..., "slot_bytes": ...} with the shared memory's file: begin
  from the actor  one byte: there are commands again, after child_sleeps was set
  to the actor    "w": as many commands are done as wake_at says
  to the actor    "e" and a text: what went wrong; this process then ends

Commands themselves are in the shared memory (ChildControl in shared_slots.h), so that neither side
calls the kernel while both have work.
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

RESET = 1  # SlotCommand in shared_slots.h
MAX_TEXT = 60000
PR_SET_PDEATHSIG = 1
# Where the parts of ChildControl begin.
COMMANDS, WAKE_AT, DONE, CHILD_SLEEPS, RING = 0, 4, 64, 68, 128


class FaultyEnvironment(Exception):
    """An environment that does not keep to its own spaces, or to Gymnasium's interface."""


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


class ContinuousAction:
    def __init__(self, space):
        self.shape, self.dtype = space.shape, space.dtype
        self.size = int(np.prod(space.shape, dtype=np.int64))
        self.description = {
            "low": [float(x) if np.isfinite(x) else None for x in np.ravel(space.low)],
            "high": [float(x) if np.isfinite(x) else None for x in np.ravel(space.high)]}

    def read(self, view):
        action = view.astype(self.dtype)
        return action if len(self.shape) == 1 else action.reshape(self.shape)


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

    def read(self, view):
        if self.is_one:
            return self.dtype.type(int(view[0]) + self.start)
        return (view.astype(np.int64) + self.start).astype(self.dtype).reshape(self.shape)


def action_of(space):
    if isinstance(space, spaces.Box):
        return ContinuousAction(space)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return ChosenAction(space)
    raise FaultyEnvironment(f"actions are in a space of {type(space).__name__}; Troupe knows Box, "
                            "Discrete, MultiDiscrete and MultiBinary")


class Slot:
    """One environment and its part of the shared memory."""

    def __init__(self, env, leaves, action, memory, offsets):
        self._env, self._action = env, action
        self._leaves, self._offsets = leaves, offsets
        self._seed = memory[0:8].cast("Q")
        self._reward = memory[8:16].cast("d")
        self._flags = memory[16:20]
        self._action_view = np.frombuffer(memory, np.float64, action.size, offsets["action"])
        self._last = self._views(memory, "last_observation", "last_images")
        self._first = self._views(memory, "first_observation", "first_images")

    def _views(self, memory, numbers, images):
        """A view of each leaf's part: numbers are float64, images bytes."""
        views, at_number, at_image = [], self._offsets[numbers], self._offsets[images]
        for leaf in self._leaves:
            if leaf.is_image:
                view = np.frombuffer(memory, np.uint8, leaf.size, at_image)
                at_image += leaf.size
            else:
                view = np.frombuffer(memory, np.float64, leaf.size, at_number)
                at_number += 8 * leaf.size
            views.append(view.reshape(leaf.shape))
        return list(zip(self._leaves, views))

    def carry_out(self):
        if self._flags[0] == RESET:
            self._reset()
            return
        result = self._env.step(self._action.read(self._action_view))
        if type(result) is not tuple or len(result) != 5:
            raise FaultyEnvironment("step() gave " + (
                f"{len(result)} values" if isinstance(result, tuple) else str(type(result))) +
                ", Gymnasium's gives 5: observation, reward, terminated, truncated, info")
        observation, reward, terminated, truncated, _ = result
        for leaf, view in self._last:
            leaf.write(at(observation, leaf.path) if leaf.path else observation, view)
        self._reward[0] = reward
        flags = self._flags
        flags[1] = 1 if terminated else 0
        flags[2] = 1 if truncated else 0
        if terminated or truncated:
            self._reset()

    def _reset(self):
        # Gymnasium's seeds are of 32 bits for some environments.
        observation, _ = self._env.reset(seed=self._seed[0] & 0x7fffffff)
        for leaf, view in self._first:
            leaf.write(at(observation, leaf.path), view)


LOCK = threading.Lock()


def fence():
    """What was written before is seen before what is written after, and reads keep their order too.

    Python has no word for it; a lock's atomic instructions have that effect, taken twice even on
    processors that let others pass a single one.
    """
    LOCK.acquire()
    LOCK.release()
    LOCK.acquire()
    LOCK.release()


class Child:
    def __init__(self, channel, options):
        self._channel = channel
        if options["module"]:
            importlib.import_module(options["module"])
        kwargs = dict(options["kwargs"])
        if options["max_episode_steps"]:
            kwargs["max_episode_steps"] = options["max_episode_steps"]
        self._envs = [gymnasium.make(options["id"], **kwargs) for _ in range(options["num_slots"])]
        self._leaves = leaves_of(self._envs[0].observation_space)
        self._action = action_of(self._envs[0].action_space)
        self._slots = []

    def introduce(self):
        spec = self._envs[0].spec
        self._channel.send(json.dumps({
            "max_episode_steps": (spec and spec.max_episode_steps) or 0,
            "action": self._action.description,
            "columns": [[leaf.name, leaf.stored_shape()] for leaf in self._leaves
                        if not leaf.is_image],
            "images": [[leaf.name, leaf.stored_shape()] for leaf in self._leaves if leaf.is_image],
        }).encode())

    def share_memory(self):
        """False: the actor is gone."""
        message, files, _, _ = socket.recv_fds(self._channel, MAX_TEXT, 1)
        if not message:
            return False
        geometry = json.loads(message)
        begin, size = geometry["slots_begin"], geometry["slot_bytes"]
        whole = memoryview(mmap.mmap(files[0], begin + size * len(self._envs)))
        os.close(files[0])
        self._control = {name: whole[at:at + 4].cast("I") for name, at in
                         (("commands", COMMANDS), ("wake_at", WAKE_AT), ("done", DONE),
                          ("child_sleeps", CHILD_SLEEPS))}
        self._ring = whole[RING:RING + 2 * geometry["ring_size"]].cast("H")
        self._slots = [
            Slot(env, self._leaves, self._action,
                 whole[begin + i * size:begin + (i + 1) * size], geometry["offsets"])
            for i, env in enumerate(self._envs)]
        return True

    def serve(self):
        """Until the actor is gone."""
        commands, done = self._control["commands"], self._control["done"]
        wake_at, ring, slots = self._control["wake_at"], self._ring, self._slots
        mask, count = len(ring) - 1, 0
        while True:
            if commands[0] == count:
                if not self._sleep(count):
                    return
                continue
            fence()
            slots[ring[count & mask]].carry_out()
            count = (count + 1) & 0xffffffff
            fence()
            done[0] = count
            fence()
            if wake_at[0] == count:
                self._channel.send(b"w")

    def _sleep(self, count):
        """Until there is a command behind the first `count`; False: the actor is gone."""
        commands, child_sleeps = self._control["commands"], self._control["child_sleeps"]
        child_sleeps[0] = 1
        fence()
        is_there = commands[0] != count or self._channel.recv(16)
        child_sleeps[0] = 0
        return is_there

    def close(self):
        for env in self._envs:
            env.close()


def main():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.path[0] = os.getcwd()
    try:
        child = Child(CHANNEL, json.loads(sys.argv[1]))
        child.introduce()
        if child.share_memory():
            child.serve()
        child.close()
    except (BrokenPipeError, ConnectionResetError):
        pass
    except BaseException:  # whatever an environment may raise, SystemExit included
        CHANNEL.send(b"e" + traceback.format_exc()[-MAX_TEXT:].encode())
        sys.exit(1)


main()
