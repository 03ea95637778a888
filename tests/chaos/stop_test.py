#!/usr/bin/env python3
"""A shard and peers that are stopped (SIGSTOP) and go on later.

  stop_test.py BUILD_DIR [--rounds N] [--seed S] [--long] [--keep DIR]

In an order drawn by the seed each is stopped while all are at work: the shard, a writer, a
sampler, a subscriber, and what a learner is (its sampler and publisher at once). Whoever is not
stopped goes on meanwhile, but for those who wait for the shard; the stopped one goes on once it
may; the shard's memory stays in its bounds, and in the end every row is in the log, once. --long:
stopped for longer than a keepalive waits, too, and then each process of a training run. Prints a
JSON line; exit code 1: violated."""

import random
import signal
import sys
import tempfile
import time

import kill_test
import processes
from fault_run import (KEEPALIVE_SECONDS, RECONNECT_SECONDS, SLACK_SECONDS, Violation, run_test)

SOON = RECONNECT_SECONDS + SLACK_SECONDS
# What the others must do while one is stopped: about a second's work.
COUNTS = {"writer": 2000, "sampler": 64 * 40, "subscriber": 10, "publisher": 10}
CAPACITY_ROWS = 4_000_000
MESSAGE_BUDGET_BYTES = 64 << 20
# Beside the mapped rows and messages: what README.md promises.
BASE_BYTES = 60_000_000
LONG_STOP_SECONDS = KEEPALIVE_SECONDS + 5
SHARD_STOP_SECONDS = 1.5


class Scene:
    def __init__(self, run):
        self.run = run
        self.shard = run.shard([f"tables.capacity_rows={CAPACITY_ROWS}",
                                f"replay_server.message_budget_bytes={MESSAGE_BUDGET_BYTES}"])
        address = self.shard.await_serving().address
        self.writers = [run.peer("writer", address, f"writer-{key}", key=key, per_second=2000)
                        for key in (1, 2)]
        self.samplers = [run.peer("sampler", address, f"sampler-{i}", keys="1,2", per_second=50)
                         for i in (1, 2)]
        self.subscribers = [run.peer("subscriber", address, f"subscriber-{i}") for i in (1, 2)]
        self.publisher = run.peer("publisher", address, "publisher", per_second=20)
        self.peers = [*self.writers, *self.samplers, *self.subscribers, self.publisher]
        self.await_all(self.peers)

    def await_all(self, peers, counts=None, seconds=60):
        for peer in peers:
            peer.await_more((counts or {}).get(peer.role, 1), seconds)

    def victims(self):
        """What is stopped -> the processes."""
        return {"shard": [self.shard], "writer": [self.writers[0]], "sampler": [self.samplers[0]],
                "subscriber": [self.subscribers[0]],
                "learner": [self.samplers[0], self.publisher]}

    def stop(self, what, at_least_seconds):
        """Returns the seconds after the stop's end in which all went on."""
        victims = self.victims()[what]
        begin = time.monotonic()
        for victim in victims:
            victim.stop()
        if what == "shard":
            time.sleep(SHARD_STOP_SECONDS)
        else:
            # Without a publisher there is nothing to subscribe to.
            self.await_all([peer for peer in self.peers if peer not in victims and
                            not (what == "learner" and peer in self.subscribers)], COUNTS)
        time.sleep(max(0, begin + at_least_seconds - time.monotonic()))
        self.check_memory()
        for victim in victims:
            victim.go_on()
        begin = time.monotonic()
        self.await_all(self.peers, seconds=SOON)
        return round(time.monotonic() - begin, 2)

    def check_memory(self):
        """Returns the bytes."""
        anonymous = self.shard.resident_bytes()
        if anonymous > BASE_BYTES + MESSAGE_BUDGET_BYTES:
            raise Violation(f"the shard has {anonymous} bytes of its own")
        return anonymous

    def check(self):
        self.run.end_writers(self.writers)
        for peer in [*self.samplers, *self.subscribers]:
            for name in ("wrong", "rejected"):
                if peer.state().get(name):
                    raise Violation(f"{peer.name}: {peer.state()}")
        anonymous = self.check_memory()
        self.shard.end()
        return {"rows_acked": self.run.check_rows(self.writers),
                "shard_anonymous_bytes": anonymous}


def disturb(scene, args):
    draw = random.Random(args.seed)
    figures = {}
    stops = [(what, 0) for what in scene.victims()]
    if args.long:
        stops += [(what, LONG_STOP_SECONDS) for what in scene.victims()]
    for _ in range(args.rounds):
        draw.shuffle(stops)
        for what, at_least_seconds in stops:
            seconds = scene.stop(what, at_least_seconds)
            name = f"{what}, {at_least_seconds} s" if at_least_seconds else what
            figures[name] = max(seconds, figures.get(name, 0))
    return figures


def stop_training(bin_dir, draw):
    """Every process of a training run is stopped for a moment, and for long; it trains on, and what
    is left is checked as after kills.  Returns the figures."""
    with tempfile.TemporaryDirectory(prefix="troupe_stop_") as run_dir:
        cluster = processes.Cluster(bin_dir, run_dir)
        try:
            stops = [(victim, seconds) for victim in cluster.processes
                     for seconds in (SHARD_STOP_SECONDS, LONG_STOP_SECONDS)]
            draw.shuffle(stops)
            await_growth(cluster)
            for victim, seconds in stops:
                victim.signal(signal.SIGSTOP)
                cluster.run_for(seconds)
                victim.signal(signal.SIGCONT)
                await_growth(cluster)
            kill_test.finish(cluster)
        except processes.Violation as violation:
            raise Violation(str(violation)) from violation
        finally:
            cluster.kill_all()
        figures, violations = kill_test.check(cluster)
        if violations:
            raise Violation("; ".join(violations))
        return figures


def await_growth(cluster):
    steps = cluster.env_steps() + kill_test.GROWTH_ENV_STEPS
    cluster.wait_for(lambda: cluster.env_steps() >= steps, f"{steps} env steps")


def disturb_all(run, args):
    scene = Scene(run)
    figures = {"went_on_after_seconds": disturb(scene, args), **scene.check()}
    if args.long:
        figures["training"] = stop_training(str(run.bin), random.Random(args.seed))
    return figures


if __name__ == "__main__":
    sys.exit(run_test("stop_test", __doc__, disturb_all))
