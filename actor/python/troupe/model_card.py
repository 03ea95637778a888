"""A folder with a policy as the Hugging Face hub's users expect it: a card, the weights, the
configuration.  Every number in it is read from the run's files.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from . import export, learning_curve, play
from .learning_curve import Evaluation
from .policy import PUBLISHED_POLICY
from .source import CONFIG_FILE, EVALUATIONS_FILE, Source

# The name under which the hub shows a video.
VIDEO_FILE = "replay.mp4"
CURVE_FILE = "learning_curve.png"
_FOLDERS_STATE = "state.json"  # of deploy/up


def write_card(sources: Sequence[Source], folder: str | os.PathLike[str], *,
               video: bool = False) -> list[str]:
    """Packs the first policy; the others are runs of the same task with other seeds.

    Returns the names of the files.  ValueError if the runs are not alike or were not evaluated.
    """
    _check(sources)
    first, folder = sources[0], pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PUBLISHED_POLICY).write_bytes(first.image)
    (folder / CONFIG_FILE).write_text(_without_addresses(first.config_text), encoding="utf-8")
    lines = [json.dumps(evaluation) + "\n" for evaluation in first.evaluations]
    (folder / EVALUATIONS_FILE).write_text("".join(lines), encoding="utf-8")
    export.export(first.policy, folder / "policy.onnx", "onnx")
    export.export(first.policy, folder / "policy.pt", "torchscript")
    title = f"{first.algorithm} on {first.environment_id}"
    learning_curve.draw({_name(s, sources): s.evaluations for s in sources}, title,
                        folder / CURVE_FILE)
    if video:
        play.play(first, folder / VIDEO_FILE)
    (folder / "README.md").write_text(_card(sources, title, video), encoding="utf-8")
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def _check(sources: Sequence[Source]) -> None:
    for source in sources:
        if not source.evaluations:
            raise ValueError(f"{source.path}: no evaluations, and a card says nothing that was not "
                             "measured")
        if not source.config_text:
            raise ValueError(f"{source.path}: its configuration is not there; --config FILE")
    tasks = {(source.algorithm, source.environment_id) for source in sources}
    if len(tasks) > 1:
        raise ValueError(f"a card is of one task, but these runs are of {sorted(tasks)}")


def _name(source: Source, sources: Sequence[Source]) -> str:
    """The seed, and where that is another run's too, also the folder."""
    seed = source.config.seed
    is_alone = sum(other.config.seed == seed for other in sources) == 1
    return f"seed {seed}" if is_alone else f"seed {seed}, {source.path}"


def _result(source: Source) -> tuple[Evaluation, bool]:
    """The evaluation of this very policy, or else of the newest one; whether it is the former."""
    exact = source.evaluation()
    return (exact, True) if exact else (source.evaluations[-1], False)


def _without_addresses(config_text: str) -> str:
    return "".join(line for line in config_text.splitlines(keepends=True)
                   if not line.startswith("shards:"))


def _commit(source: Source) -> str:
    """Of the programs that trained; empty if deploy/up did not know it."""
    state = source.folder / _FOLDERS_STATE
    if not state.is_file():
        return ""
    return str(json.loads(state.read_text(encoding="utf-8")).get("commit", ""))


def _front_matter(first: Source) -> str:
    name = json.dumps(first.environment_id)
    algorithm = first.algorithm
    tags = f"""---
library_name: troupe
pipeline_tag: reinforcement-learning
tags:
- {name}
- reinforcement-learning
- deep-reinforcement-learning
- troupe
- {algorithm.lower()}
- onnx
"""
    result = first.evaluation()
    if result is None:
        return tags + "---"
    return f"""{tags}model-index:
- name: {algorithm}
  results:
  - task:
      type: reinforcement-learning
      name: reinforcement-learning
    dataset:
      name: {name}
      type: {name}
    metrics:
    - type: mean_reward
      value: {result['return_mean']:.2f} +/- {result['return_std']:.2f}
      name: mean_reward
      verified: false
---"""


def _card(sources: Sequence[Source], title: str, video: bool) -> str:
    first = sources[0]
    parts = [_front_matter(first), f"# {title}", _summary(first), _runs(sources),
             f"![Return against steps]({CURVE_FILE})", _files(video), _use(first)]
    return "\n\n".join(parts) + "\n"


def _summary(source: Source) -> str:
    metadata, (result, exact) = source.policy.metadata, _result(source)
    rows = [("algorithm", source.algorithm), ("environment", source.environment_id),
            ("run", f"`{metadata.run}`"),
            ("policy", f"version {metadata.version >> 40}.{metadata.version & ((1 << 40) - 1)}, "
                       f"{metadata.updates:,} updates"),
            ("environment steps", f"{metadata.env_steps:,}"), ("seed", str(source.config.seed)),
            ("mean return", f"{result['return_mean']:.2f} +/- {result['return_std']:.2f} over "
                            f"{result['episodes']} deterministic episodes")]
    commit = _commit(source)
    if commit:
        rows.append(("commit", f"`{commit}`"))
    table = "\n".join(["| | |", "|---|---|", *[f"| {key} | {value} |" for key, value in rows]])
    if exact:
        return table
    return (f"{table}\n\nThe return is that of the run's last evaluation, at "
            f"{result['env_steps']:,} steps: this policy itself was not evaluated.")


def _runs(sources: Sequence[Source]) -> str:
    if len(sources) == 1:
        return ("One seed: what another one would give is not known. +/- is the standard deviation "
                "over episodes.")
    finals = [(source, source.evaluations[-1]) for source in sources]
    means = [final["return_mean"] for _, final in finals]
    lines = ["| seed | steps | mean return at the end | episodes |", "|---|---|---|---|"]
    lines += [f"| {source.config.seed} | {final['env_steps']:,} | {final['return_mean']:.2f} +/- "
              f"{final['return_std']:.2f} | {final['episodes']} |" for source, final in finals]
    seeds = len({source.config.seed for source in sources})
    which = f"{seeds} seeds" if seeds == len(sources) else (
        f"{len(sources)} runs, not all of different seeds")
    return "\n".join(lines) + (f"\n\nOver {which}: {statistics.mean(means):.2f} +/- "
                               f"{statistics.stdev(means):.2f}, the standard deviation of their "
                               "means.")


def _files(video: bool) -> str:
    files = [(PUBLISHED_POLICY, "the policy: weights and network, safetensors"),
             ("policy.onnx", "the same for ONNX Runtime; its metadata says what goes in and out"),
             ("policy.pt", "the same for TorchScript (`torch.jit.load`)"),
             (CONFIG_FILE, "the configuration of the run"),
             (EVALUATIONS_FILE, "every evaluation, a JSON line each")]
    if video:
        files.append((VIDEO_FILE, "an episode"))
    return "\n".join(["| file | |", "|---|---|", *[f"| `{n}` | {what} |" for n, what in files]])


def _use(source: Source) -> str:
    inputs = "\n".join(f"# {name}: {what}"
                       for name, what in export.describe(source.policy)["inputs"].items())
    return f"""## Use
```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("policy.onnx")
{inputs}
inputs = {{i.name: np.zeros([1, *i.shape[1:]], np.uint8 if "uint8" in i.type else np.float32)
          for i in session.get_inputs()}}
action = session.run(["action"], inputs)[0]  # [batch, {source.policy.metadata.action_size}]
```
`troupe play . -o episode.mp4` in this folder renders it;
`troupe.policy.Policy.load("{PUBLISHED_POLICY}")` is the policy in numpy."""
