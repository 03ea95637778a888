"""Draws runs' returns against their steps.

Stands alone: deploy/up draws with it before anything of Python is installed but matplotlib.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

Evaluation = dict[str, Any]


def read_evaluations(path: str | os.PathLike[str]) -> list[Evaluation]:
    """The evaluations by env steps; of two at the same step (after a resume) the later counts."""
    evaluations = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                evaluation = json.loads(line)
            except ValueError:
                continue  # a kill -9 can leave half a line
            evaluations[evaluation["env_steps"]] = evaluation
    return [evaluations[steps] for steps in sorted(evaluations)]


def spread_over_runs(runs: Sequence[Sequence[Evaluation]]) -> list[tuple[int, float, float]]:
    """Steps, mean and standard deviation over the runs' mean returns.

    Runs are evaluated at steps of their own: each is taken as a line between its evaluations, at
    the steps of the first one, as far as all of them go.
    """
    first, last = (max(run[0]["env_steps"] for run in runs),
                   min(run[-1]["env_steps"] for run in runs))
    steps = [e["env_steps"] for e in runs[0] if first <= e["env_steps"] <= last] or [last]
    if steps[-1] != last:
        steps.append(last)
    points = []
    for step in steps:
        returns = [_between(run, step) for run in runs]
        mean = sum(returns) / len(returns)
        variance = sum((value - mean) ** 2 for value in returns) / max(len(returns) - 1, 1)
        points.append((step, mean, math.sqrt(variance)))
    return points


def draw(runs: Mapping[str, Sequence[Evaluation]], title: str,
         path: str | os.PathLike[str]) -> None:
    """One run with the spread over its episodes; of several also their mean and its spread.

    `runs`: evaluations by name.  The file's ending says what is drawn: .png, .svg or .pdf.
    """
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=120)
    for name, run in runs.items():
        steps, means = [e["env_steps"] for e in run], [e["return_mean"] for e in run]
        if len(runs) == 1:
            _shade(axes, steps, means, [e["return_std"] for e in run],
                   "one standard deviation over episodes")
            axes.plot(steps, means, marker="o", markersize=3, label="mean return")
        else:
            axes.plot(steps, means, linewidth=1, alpha=0.5, label=name)
    if len(runs) > 1:
        points = spread_over_runs(list(runs.values()))
        steps, means, spreads = ([point[i] for point in points] for i in range(3))
        _shade(axes, steps, means, spreads, f"one standard deviation over {len(runs)} runs")
        axes.plot(steps, means, color="black", label="mean of the runs")
    axes.set_title(f"{title}: {means[-1]:.1f} after {steps[-1]:,} steps")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of deterministic episodes")
    axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    figure.tight_layout()
    path = pathlib.Path(path)
    temporary = path.with_name(path.name + ".tmp")
    figure.savefig(temporary, format=path.suffix[1:] or "png")
    pyplot.close(figure)
    temporary.replace(path)


def _between(run: Sequence[Evaluation], step: int) -> float:
    for before, after in zip(run, run[1:]):
        if before["env_steps"] <= step <= after["env_steps"]:
            part = (step - before["env_steps"]) / (after["env_steps"] - before["env_steps"])
            return before["return_mean"] + part * (after["return_mean"] - before["return_mean"])
    return run[-1 if step >= run[-1]["env_steps"] else 0]["return_mean"]


def _shade(axes: Any, steps: Sequence[float], means: Sequence[float], spreads: Sequence[float],
           label: str) -> None:
    axes.fill_between(steps, [m - s for m, s in zip(means, spreads)],
                      [m + s for m, s in zip(means, spreads)], alpha=0.25, linewidth=0, label=label)
