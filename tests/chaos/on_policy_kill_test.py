"""Kills an actor of a synchronous PPO run, again and again: no batch may mix policies or be lost.

  on_policy_kill_test.py BUILD_DIR [--kills N] [--every S] [--seed S]

Three actors fill the learner's batches; a random one of them is killed every S seconds, at random
moments of its unroll, and comes back 0 to 3 S later.  The learner writes
a line for each batch that it learns from.  What must hold: in each line the oldest and the newest
step are 0 versions behind the learner; the lines' versions follow one another without a gap; after
each kill more batches come.  The record: on_policy_kill_test.py build/release --kills 15
--every 20.  Prints a JSON line; exit code 1: violated."""

import argparse
import json
import os
import random
import sys
import tempfile
import time

from processes import ROOT, Cluster, Violation

CONFIG = os.path.join(ROOT, "deploy", "configs", "ppo_cartpole.txtpb")
NUM_ACTORS = 3
# 3 actors with 2 environments do not fill a batch of 8 windows at once: each round asks for more.
SETTINGS = ["tables.capacity_rows=1000000", "actor.num_envs=2", "learner.log_interval_updates=1",
            "learner.checkpoint_interval_updates=100000", "learner.ppo.epochs=2"]
BATCHES_AFTER_A_KILL = 3
COUNTER_BITS = 40


def batches(cluster):
    """The learner's lines, one a batch."""
    return [line for line in cluster.learner_lines() if "policy_lag_max" in line]


def await_batches(cluster, more):
    known = len(batches(cluster))
    cluster.wait_for(lambda: len(batches(cluster)) >= known + more, f"{more} more batches")


def kill_actors(cluster, args, rng):
    await_batches(cluster, 1)
    for _ in range(args.kills):
        cluster.run_for(args.every * rng.uniform(0.8, 1.2))
        victim = rng.choice([actor for actor in cluster.actors if actor.running])
        if not victim.kill(rng.uniform(0, 3 * args.every)):
            raise Violation(f"{victim.name} had ended before it was killed")
        await_batches(cluster, BATCHES_AFTER_A_KILL)


def check(lines):
    violations = []
    for line in lines:
        if line["policy_lag_min"] != 0 or line["policy_lag_max"] != 0:
            violations.append(f"a batch by other policies than the newest: {line}")
    versions = [line["policy_version"] & ((1 << COUNTER_BITS) - 1) for line in lines]
    for before, after in zip(versions, versions[1:]):
        if after != before + 1:
            violations.append(f"version {after} follows version {before}")
    return violations


def run(args, run_dir):
    began = time.monotonic()
    cluster = Cluster(os.path.join(args.build_dir, "bin"), run_dir, CONFIG, SETTINGS, NUM_ACTORS)
    violations = []
    kills = 0
    try:
        kill_actors(cluster, args, random.Random(args.seed))
    except Violation as violation:
        violations.append(str(violation))
    finally:
        kills = sum(actor.kills for actor in cluster.actors)
        cluster.kill_all()
    lines = batches(cluster)
    violations += check(lines)
    print(json.dumps({"kills": kills, "batches": len(lines),
                      "env_steps": lines[-1]["env_steps"] if lines else 0,
                      "seconds": round(time.monotonic() - began, 1), "seed": args.seed,
                      "violations": len(violations)}))
    for violation in violations[:20]:
        print(f"on_policy_kill_test: {violation}", file=sys.stderr)
    return 1 if violations else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build_dir", metavar="BUILD_DIR")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--every", type=float, default=1, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="troupe_on_policy_") as run_dir:
        return run(args, run_dir)


if __name__ == "__main__":
    sys.exit(main())
