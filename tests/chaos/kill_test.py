"""Kills processes of a training run with SIGKILL, again and again, and checks what is left.

  kill_test.py BUILD_DIR [--kills N] [--seed S] [--run_dir D] [--sampling REMOTE|REPLICA]

Every kind of process (actor, shard, learner) is killed N times, at random moments, while the
others train on.  Then the run ends by itself and nothing may be lost: see checker.py.  Prints one
JSON line of figures; exit code 1: something was violated.  --run_dir keeps what the run leaves."""

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time

from checker import check_learner, check_rows, merge_ledgers
from processes import (CAPACITY_ROWS, CHECKPOINT_INTERVAL, NUM_SHARDS, SETTINGS, Cluster,
                       Violation)

KINDS = ("actor", "shard", "learner")
# Training goes on after a kill: so many env steps more, which is beyond what the rate limiter lets
# actors run ahead of a learner that is gone (slack / samples_per_insert = 66).
GROWTH_ENV_STEPS = 200
LAST_ENV_STEPS = 1000


class Killer:
    """Draws whom to kill, when, and how long it stays away."""

    def __init__(self, cluster, seed):
        self.kills_survived = 0  # after which env steps were seen to grow
        self._cluster = cluster
        self._random = random.Random(seed)
        self._unproven = 0  # kills after which that is still to be seen

    def run(self, kills):
        order = [kind for kind in KINDS for _ in range(kills)]
        self._random.shuffle(order)
        self._await_growth(0)
        for kind in order:
            self._kill_one(kind)
        self._await_growth(self._cluster.env_steps())

    def _kill_one(self, kind):
        self._cluster.run_for(self._random.uniform(0.2, 2))
        victim = self._random.choice([p for p in self._cluster.processes if p.kind == kind])
        self._cluster.wait_for(lambda: victim.running, f"{victim.name} to start")
        if self._random.random() < 0.75:  # else perhaps while it starts
            self._cluster.wait_for(lambda: self._cluster.is_well(victim), f"{victim.name} to work")
        steps = self._cluster.env_steps()
        if steps > 0.9 * CAPACITY_ROWS * NUM_SHARDS:
            raise Violation(f"{steps} env steps are too many for the tables of this test")
        if not victim.kill(self._pause(kind)):
            raise Violation(f"{victim.name} had ended before it was killed")
        self._unproven += 1
        if self._random.random() < 0.8:  # else the next one dies soon after it
            self._await_growth(steps)

    def _pause(self, kind):
        if kind == "shard" and self._random.random() < 0.25:
            return 2.5  # actors move to another shard
        return self._random.uniform(0, 0.6)

    def _await_growth(self, steps):
        self._cluster.wait_for(lambda: self._cluster.env_steps() >= steps + GROWTH_ENV_STEPS,
                               f"{GROWTH_ENV_STEPS} more env steps than {steps}")
        self.kills_survived += self._unproven
        self._unproven = 0


def finish(cluster):
    """Lets the learner reach a budget, the actors follow it, and stops the shards."""
    learner = cluster.learner
    cluster.wait_for(lambda: all(map(cluster.is_well, cluster.processes)), "everyone to work")
    cluster.total_env_steps = cluster.env_steps() + LAST_ENV_STEPS
    learner.terminate()
    cluster.wait_for(lambda: learner.finished, "the learner to stop")
    learner.finished = False
    cluster.wait_for(lambda: learner.finished, "the learner to finish")
    cluster.wait_for(lambda: all(actor.finished for actor in cluster.actors), "the actors to end")
    for shard in cluster.shards:
        shard.terminate()
    cluster.wait_for(lambda: all(shard.finished for shard in cluster.shards), "the shards to stop")


def corrupt_blocks_dropped(shard_logs):
    return sum(int(number) for text in shard_logs
               for number in re.findall(r"(\d+) corrupt blocks dropped", text))


def check(cluster):
    """Returns (figures, violations)."""
    logs = cluster.row_logs()
    if len(logs) < NUM_SHARDS:
        return {}, [f"only {len(logs)} of {NUM_SHARDS} row logs can be read"]
    figures, violations = check_rows(merge_ledgers(cluster.ledgers()), logs)
    lines, lives = cluster.learner_lines(), cluster.learner_lives()
    violations += check_learner(lines, lives, CHECKPOINT_INTERVAL)
    dropped = corrupt_blocks_dropped(cluster.shard_logs())
    if dropped:
        violations.append(f"restarted shards dropped {dropped} corrupt blocks")
    left_behind = cluster.left_behind()
    if left_behind:
        violations.append(f"left behind: {left_behind}")
    figures["corrupt_blocks"] += dropped
    figures["updates"] = lines[-1]["updates"] if lines else 0
    figures["learner_resumed"] = sum(1 for _, resumed in lives if resumed)
    figures["left_behind"] = len(left_behind)
    return figures, violations


def run(args, run_dir):
    began = time.monotonic()
    cluster = Cluster(os.path.join(args.build_dir, "bin"), run_dir,
                      settings=[*SETTINGS, f"learner.sampling={args.sampling}"])
    killer = Killer(cluster, args.seed)
    violations = []
    try:
        killer.run(args.kills)
        finish(cluster)
    except Violation as violation:
        violations.append(str(violation))
    finally:
        cluster.kill_all()
    figures, found = check(cluster)
    violations += found
    kills = {kind: sum(p.kills for p in cluster.processes if p.kind == kind) for kind in KINDS}
    print(json.dumps({"kills": kills, "kills_survived": killer.kills_survived, **figures,
                      "seed": args.seed, "seconds": round(time.monotonic() - began, 1),
                      "violations": len(violations)}))
    for violation in violations:
        print(f"kill_test: {violation}", file=sys.stderr)
    return 1 if violations else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build_dir", metavar="BUILD_DIR")
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run_dir", help="a folder that does not exist yet")
    parser.add_argument("--sampling", choices=("REMOTE", "REPLICA"), default="REMOTE")
    args = parser.parse_args()
    if args.run_dir:
        os.makedirs(args.run_dir)
        return run(args, os.path.abspath(args.run_dir))
    with tempfile.TemporaryDirectory(prefix="troupe_kill_") as run_dir:
        return run(args, run_dir)


if __name__ == "__main__":
    sys.exit(main())
