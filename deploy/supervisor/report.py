"""What a run leaves behind: summary.json and the learning curve."""

import json
import os
import subprocess
import sys


def summarize(status, state):
    """The figures of summary.json: numbers only, flat."""
    learner, evaluation = status.learner(), status.evaluation()
    wall_seconds = state["wall_seconds"]
    env_steps, updates = status.env_steps(), learner.get("updates", 0)
    stored = int(status.shards_sum("troupe_replay_rows_appended_total"))
    acked = state["actors"].get("rows_acked", 0)
    return {
        "env_steps": env_steps,
        "updates": updates,
        "wall_seconds": wall_seconds,
        "env_steps_per_second": env_steps / wall_seconds if wall_seconds else 0.0,
        "updates_per_second": updates / wall_seconds if wall_seconds else 0.0,
        "eval_return_mean": evaluation.get("return_mean", 0.0),
        "eval_return_std": evaluation.get("return_std", 0.0),
        "eval_episodes": evaluation.get("episodes", 0),
        "policy_version": learner.get("policy_version", 0),
        "policy_lag_mean": status.lag(),
        "rows_appended": stored,
        "rows_acked": acked,
        # Acked to an actor, yet never stored.
        "rows_lost": max(0, acked - stored),
        "rows_duplicated": duplicated(stored, state["actors"]),
    }


def duplicated(stored, actors):
    """Rows stored beyond those that actors have made.

    Rows received twice and ignored are no duplicates.  An actor that was killed takes the exact
    number of its last rows with it: then it cannot be said, and the shards' own refusal to store
    a row number twice has to stand for it.
    """
    return 0 if actors.get("killed") else max(0, stored - actors.get("rows_appended", 0))


def write_summary(directory, summary):
    directory.write("summary.json", json.dumps(summary, indent=2) + "\n")


def draw_curve(directory, environment):
    """Draws learning_curve.png; returns what went wrong, "" if nothing."""
    script = os.path.join(os.path.dirname(__file__), "..", "learning_curve.py")
    try:
        result = subprocess.run([sys.executable, script, directory.path, "--title", environment],
                                capture_output=True, text=True, timeout=120, check=False,
                                start_new_session=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if result.returncode == 0 else result.stderr.strip().splitlines()[-1]
