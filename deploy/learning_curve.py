"""Draws D/learning_curve.png from D/evaluator/evaluations.jsonl.

    build/venv/bin/python deploy/learning_curve.py D [--title TEXT]
"""

import argparse
import json
import os
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (the backend comes first)


def read_evaluations(path):
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


def draw(evaluations, title, path):
    steps = [e["env_steps"] for e in evaluations]
    means = [e["return_mean"] for e in evaluations]
    lows = [e["return_mean"] - e["return_std"] for e in evaluations]
    highs = [e["return_mean"] + e["return_std"] for e in evaluations]
    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=120)
    axes.fill_between(steps, lows, highs, alpha=0.25, linewidth=0,
                      label="one standard deviation over episodes")
    axes.plot(steps, means, marker="o", markersize=3, label="mean return")
    axes.set_title(f"{title}: {means[-1]:.1f} after {steps[-1]:,} steps")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of deterministic episodes")
    axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    figure.tight_layout()
    figure.savefig(path + ".tmp", format="png")
    os.replace(path + ".tmp", path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir")
    parser.add_argument("--title", default="")
    args = parser.parse_args()
    path = os.path.join(args.run_dir, "evaluator", "evaluations.jsonl")
    evaluations = read_evaluations(path) if os.path.exists(path) else []
    if not evaluations:
        sys.exit(f"no evaluations in {path}")
    draw(evaluations, args.title or os.path.basename(os.path.abspath(args.run_dir)),
         os.path.join(args.run_dir, "learning_curve.png"))


if __name__ == "__main__":
    main()
