"""A snapshot or checkpoint as a policy, in numpy (the actor's is common/policy.h)."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass

import numpy as np

from . import checkpoint, network, policy_metadata, safetensors
from .numpy_steps import NumpySteps
from .policy_metadata import PolicyMetadata


# Of a folder that was published (model_card.py).
PUBLISHED_POLICY = "model.safetensors"


@dataclass(frozen=True)
class Acted:
    """Actions for a batch of observations."""

    # For the environment: native units within the bounds, float32, or choices, int64.
    action: np.ndarray  # [n, action_size]
    # As a row of experience holds it: as drawn, which of a Gaussian may lie outside of the bounds.
    row: np.ndarray  # [n, action_size], float32
    # Logarithm of the density, or probability, of `row`; 0 in warm-up.
    log_prob: np.ndarray  # [n], float32
    # What the policy remembers, for the next call; an episode begins with initial_state.
    state: np.ndarray  # [n, state_size]


class Policy:
    """A policy built of its image alone.  Not thread-safe: it has a source of noise."""

    def __init__(self, image: safetensors.Image, seed: int = 0) -> None:
        """ValueError names the tensor or key, what is there and what was expected."""
        self.metadata: PolicyMetadata = policy_metadata.parse(image.metadata)
        self.tensors = dict(image.tensors)
        _check_tensors(self.metadata, self.tensors)
        self._forward = network.Forward(self.metadata, self.tensors, NumpySteps())
        self._random = np.random.default_rng(seed)

    @classmethod
    def from_image(cls, image: bytes, seed: int = 0) -> Policy:
        """Of a snapshot's bytes, or of a checkpoint's policy.safetensors; they may be hostile."""
        return cls(safetensors.parse(image), seed)

    @classmethod
    def load(cls, path: str | os.PathLike[str], seed: int = 0) -> Policy:
        """Of a policy's file, a card's folder, a checkpoint's, or a run's newest checkpoint."""
        return cls.from_image(find_image(path).image, seed)

    def initial_state(self, n: int = 1) -> np.ndarray:
        """What `n` episodes begin with."""
        return np.zeros((n, self.metadata.recurrence.state_size), np.float32)

    def mode(self, observations: np.ndarray, state: np.ndarray | None = None,
             images: np.ndarray | None = None) -> Acted:
        """The most likely actions, even in warm-up.

        `observations`: [n, observation_size]; of policies that see images also `images`, uint8
        [n, frame_stack, height, width, channels], the oldest frame first, before an episode's first
        frame that one again.
        """
        head, after = self._see(observations, state, images)
        if self.metadata.distribution == policy_metadata.CATEGORICAL:
            return self._acted(head, self._forward.most_likely(head), after)
        return self._acted(head, self._gaussian(head)[0], after)

    def sample(self, observations: np.ndarray, state: np.ndarray | None = None,
               images: np.ndarray | None = None) -> Acted:
        """Actions drawn at random; in warm-up uniformly within the bounds."""
        head, after = self._see(observations, state, images)
        if not self.metadata.warmup:
            return self._acted(head, self._draw(head), after)
        action = self._uniform(len(head))
        return Acted(action, action.astype(np.float32), np.zeros(len(head), np.float32), after)

    def _acted(self, head: np.ndarray, drawn: np.ndarray, after: np.ndarray) -> Acted:
        """`drawn`: choices, or what the Gaussian gave."""
        log_prob = self._log_prob(head, drawn)
        if not np.isfinite(log_prob).all():
            raise self._not_a_number()
        if self.metadata.distribution == policy_metadata.CATEGORICAL:
            return Acted(drawn, drawn.astype(np.float32), log_prob, after)
        action = self._forward.for_environment(drawn).astype(np.float32)
        row = action
        if self.metadata.distribution == policy_metadata.GAUSSIAN:
            row = self._forward.to_native_units(drawn).astype(np.float32)
        return Acted(action, row, log_prob, after)

    def _see(self, observations: np.ndarray, state: np.ndarray | None,
             images: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        observations = np.ascontiguousarray(observations, np.float32)
        if observations.ndim != 2 or observations.shape[1] != self.metadata.observation_size:
            raise ValueError(f"observations are {list(observations.shape)}, expected "
                             f"[n, {self.metadata.observation_size}]")
        wanted = (len(observations), self.metadata.recurrence.state_size)
        if state is None:
            if wanted[1]:
                raise ValueError("this policy remembers: give it initial_state(n) at first, then "
                                 "the state of its last answer")
            state = self.initial_state(len(observations))
        if np.shape(state) != wanted:
            raise ValueError(f"the state is {list(np.shape(state))}, expected {list(wanted)}")
        self._check_images(len(observations), images)
        with np.errstate(over="ignore", invalid="ignore"):
            seen = self._forward.see(observations, np.ascontiguousarray(state, np.float32), images)
        if np.isnan(seen.head).any() or not np.isfinite(seen.state).all():
            raise self._not_a_number()
        return seen.head, seen.state

    def _check_images(self, n: int, images: np.ndarray | None) -> None:
        encoder = self.metadata.encoder
        if encoder is None and images is None:
            return
        wanted = f"uint8{[n, *encoder.stack_shape]}" if encoder else "none"
        found = "none" if images is None else f"{images.dtype}{list(images.shape)}"
        if found != wanted:
            raise ValueError(f"the images are {found}, expected {wanted}")

    def _not_a_number(self) -> ValueError:
        return ValueError(f"policy {self.metadata.version} gives actions that are not numbers: its "
                          "weights, or the observations, are too large")

    def _gaussian(self, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and logarithm of the standard deviation, [n, action_size]."""
        size = self.metadata.action_size
        if self.metadata.distribution == policy_metadata.GAUSSIAN:
            return head.astype(np.float64), self.tensors["actor.log_std"].astype(np.float64)
        log_std = np.clip(head[:, size:], self.metadata.log_std_min, self.metadata.log_std_max)
        return head[:, :size].astype(np.float64), log_std.astype(np.float64)

    def _logits(self, head: np.ndarray) -> list[np.ndarray]:
        """Normalized, [n, choices] for each element of the action."""
        parts = np.split(head.astype(np.float64), np.cumsum(self.metadata.num_choices)[:-1], axis=1)
        shifted = [part - part.max(axis=1, keepdims=True) for part in parts]
        return [s - np.log(np.exp(s).sum(axis=1, keepdims=True)) for s in shifted]

    def _draw(self, head: np.ndarray) -> np.ndarray:
        """Choices, or what the Gaussian gave, before tanh and in units of half the range."""
        if self.metadata.distribution == policy_metadata.CATEGORICAL:
            columns = [(np.exp(p).cumsum(axis=1) > self._random.random((len(p), 1))).argmax(axis=1)
                       for p in self._logits(head)]
            return np.stack(columns, axis=1)
        mean, log_std = self._gaussian(head)
        return mean + np.exp(log_std) * self._random.standard_normal(mean.shape)

    def _log_prob(self, head: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Of what _draw gives; [n], float32."""
        if self.metadata.distribution == policy_metadata.CATEGORICAL:
            parts = [np.take_along_axis(p, drawn[:, i:i + 1], axis=1)
                     for i, p in enumerate(self._logits(head))]
            return np.concatenate(parts, axis=1).sum(axis=1).astype(np.float32)
        mean, log_std = self._gaussian(head)
        noise = (drawn - mean) * np.exp(-log_std)
        terms = -0.5 * np.square(noise) - log_std - 0.5 * np.log(2 * np.pi)
        if self.metadata.distribution == policy_metadata.SQUASHED_GAUSSIAN:
            # log |d tanh(u) / du|, exact where tanh saturates.
            terms -= 2 * (np.log(2.0) - drawn - np.logaddexp(0, -2 * drawn))
        return terms.sum(axis=1).astype(np.float32)

    def _uniform(self, n: int) -> np.ndarray:
        if self.metadata.distribution == policy_metadata.CATEGORICAL:
            return self._random.integers(self.metadata.num_choices,
                                         size=(n, self.metadata.action_size))
        return self._random.uniform(self.metadata.action_low, self.metadata.action_high,
                                    (n, self.metadata.action_size)).astype(np.float32)


@dataclass(frozen=True)
class FoundImage:
    """The bytes of a policy, and where they were."""

    image: bytes
    folder: pathlib.Path
    checkpoint: checkpoint.Checkpoint | None  # that holds them


def find_image(path: str | os.PathLike[str]) -> FoundImage:
    """As Policy.load.  FileNotFoundError: there is none."""
    path = pathlib.Path(path)
    if path.is_file():
        return FoundImage(path.read_bytes(), path.parent, None)
    published = path / PUBLISHED_POLICY
    if published.is_file() and not (path / checkpoint.MARKER).exists():
        return FoundImage(published.read_bytes(), path, None)
    found = checkpoint.find(path)
    if checkpoint.POLICY_FILE not in found.files:
        raise FileNotFoundError(f"{found.path} holds no policy yet")
    return FoundImage(found.files[checkpoint.POLICY_FILE], found.path or path, found)


def _check_tensors(metadata: PolicyMetadata, tensors: dict[str, np.ndarray]) -> None:
    wanted = network.parameter_shapes(metadata)
    if network.MEAN in tensors or network.STD in tensors:
        wanted[network.MEAN] = wanted[network.STD] = (metadata.observation_size,)
    if network.REWARD_STD in tensors:
        wanted[network.REWARD_STD] = (1,)
    for name, shape in wanted.items():
        found = tensors.get(name)
        if found is None:
            raise ValueError(f"no tensor '{name}' F32{list(shape)}")
        if found.dtype != np.float32 or found.shape != shape:
            raise ValueError(f"tensor '{name}' {found.dtype}{list(found.shape)}, expected "
                             f"float32{list(shape)}")
        if not np.isfinite(found).all():
            raise ValueError(f"tensor '{name}' holds something that is not finite")
    unknown = sorted(tensors.keys() - wanted.keys())
    if unknown:
        raise ValueError(f"tensor '{unknown[0]}' is not of the policy")
    if network.STD in tensors and tensors[network.STD].min() <= 0:
        raise ValueError(f"tensor '{network.STD}': {tensors[network.STD].min()} is no std")
