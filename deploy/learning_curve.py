"""Draws D/learning_curve.png from D/evaluator/evaluations.jsonl.

    build/venv/bin/python deploy/learning_curve.py D [--title TEXT]
"""

import argparse
import importlib.util
import os
import sys

# Of the Python package, without importing the package: its stubs are made by the build only.
_SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "actor", "python",
                       "troupe", "learning_curve.py")
_SPEC = importlib.util.spec_from_file_location("troupe_learning_curve", _SOURCE)
_CURVE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_CURVE)
read_evaluations = _CURVE.read_evaluations


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir")
    parser.add_argument("--title", default="")
    args = parser.parse_args()
    path = os.path.join(args.run_dir, "evaluator", "evaluations.jsonl")
    evaluations = read_evaluations(path) if os.path.exists(path) else []
    if not evaluations:
        sys.exit(f"no evaluations in {path}")
    name = os.path.basename(os.path.abspath(args.run_dir))
    _CURVE.draw({name: evaluations}, args.title or name,
                os.path.join(args.run_dir, "learning_curve.png"))


if __name__ == "__main__":
    main()
