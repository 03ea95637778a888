#!/usr/bin/env python3
"""A shard whose peers have bad networks.

  network_faults_test.py BUILD_DIR [--rounds N] [--seed S] [--long] [--keep DIR]

A writer, a sampler and a subscriber reach a shard through proxies that break in every way that
fault_proxy.py knows, in an order drawn by the seed; a second writer, sampler and subscriber reach
it undisturbed.  While a fault lasts, these go on; once it is over, the disturbed ones go on by
themselves within the time that ARCHITECTURE.md gives; in the end every row is in the log as its
writer made it, once, and no window was wrong.  --long: all faults, not just one of those that a
keepalive must find, and connections that were idle.  Prints a JSON line; exit code 1: violated."""

import random
import sys
import time

from fault_run import (KEEPALIVE_SECONDS, RECONNECT_SECONDS, SLACK_SECONDS, Violation, run_test,
                       wait_for)

SOON = RECONNECT_SECONDS + SLACK_SECONDS
AFTER_KEEPALIVE = KEEPALIVE_SECONDS + SOON
# Command of the proxies -> how soon the disturbed go on once it has ended. Unit: seconds
QUICK_FAULTS = {"delay both 0.3": SOON, "throttle both 20000": SOON, "throttle up 0": SOON,
                "throttle down 0": SOON, "cut rst": SOON, "cut fin": SOON, "vanish up": SOON}
SLOW_FAULTS = {"vanish down": AFTER_KEEPALIVE, "blackhole": AFTER_KEEPALIVE}
# What the undisturbed must do meanwhile: about a second's work.
HEALTHY_COUNTS = {"writer": 2000, "sampler": 64 * 40, "subscriber": 10}
PACES = {"writer": 2000, "sampler": 50, "subscriber": 0}
# Rows of two writers, 112 bytes each: many more than are made.
CAPACITY_ROWS = 4_000_000
# A shard of this size has so much of its own beside the mapped rows.
MAX_ANONYMOUS_BYTES = 300 << 20
IDLE_SECONDS = 75  # more than three keepalive pings


class Scene:
    def __init__(self, run):
        self.run = run
        self.shard = run.shard([f"tables.capacity_rows={CAPACITY_ROWS}"]).await_serving()
        self.proxies = []
        self.disturbed = []
        self.healthy = []
        run.peer("publisher", self.shard.address, "publisher", per_second=20)
        for key, (role, pace) in enumerate(PACES.items(), 1):
            more = {"per_second": pace, "keys": "1,2"}
            proxy = run.proxy(self.shard.address)
            self.proxies.append(proxy)
            self.disturbed.append(run.peer(role, proxy.address, f"{role}-disturbed", key=1, **more))
            self.healthy.append(
                run.peer(role, self.shard.address, f"{role}-healthy", key=2, **more))
        self.await_all(self.disturbed)
        self.calls = self.open_calls()

    @property
    def writers(self):
        return [self.disturbed[0], self.healthy[0]]

    def await_all(self, peers, counts=None, seconds=60):
        for peer in peers:
            peer.await_more((counts or {}).get(peer.role, 1), seconds)

    def call(self, command):
        for proxy in self.proxies:
            proxy.call(command)

    def inflict(self, fault, limit):
        """Returns the seconds after its end in which all went on."""
        self.call(fault)
        self.await_all(self.healthy, HEALTHY_COUNTS)
        self.call("pass")
        begin = time.monotonic()
        self.await_all(self.disturbed, seconds=limit)
        return round(time.monotonic() - begin, 2)

    def open_calls(self):
        return [self.shard.metric(f"troupe_replay_{kind}_calls") for kind in ("append", "sample")]

    def await_no_ghosts(self):
        """The shard gives up the calls of those that have vanished.  Returns the seconds."""
        return wait_for(lambda: self.open_calls() == self.calls,
                        f"the shard to have {self.calls} Append and Sample calls",
                        KEEPALIVE_SECONDS + SLACK_SECONDS)

    def check(self):
        self.run.end_writers(self.writers)
        for peer in [*self.disturbed, *self.healthy]:
            for name in ("wrong", "rejected"):
                if peer.state().get(name):
                    raise Violation(f"{peer.name}: {peer.state()}")
        anonymous = self.shard.resident_bytes()
        if anonymous > MAX_ANONYMOUS_BYTES:
            raise Violation(f"the shard has {anonymous} bytes of its own")
        self.shard.end()
        return {"rows_acked": self.run.check_rows(self.writers),
                "shard_anonymous_bytes": anonymous,
                "windows": sum(p.state()["windows"] for p in (self.disturbed[1], self.healthy[1])),
                "reconnects": [p.state()["reconnects"] for p in self.disturbed]}


def idle_ghosts(scene):
    """A writer that has been idle for long vanishes: the shard forgets it all the same."""
    proxy = scene.run.proxy(scene.shard.address)
    ghost = scene.run.peer("writer", proxy.address, "idle", key=3, per_second=0)
    wait_for(lambda: scene.open_calls()[0] == scene.calls[0] + 1, "the idle writer to connect")
    time.sleep(IDLE_SECONDS)
    ghost.stop()
    proxy.call("vanish up")
    seconds = scene.await_no_ghosts()
    ghost.kill()
    return round(seconds, 1)


def disturb(scene, args):
    draw = random.Random(args.seed)
    figures = {}
    for _ in range(args.rounds):
        faults = list((QUICK_FAULTS | (SLOW_FAULTS if args.long else {})).items())
        draw.shuffle(faults)
        for fault, limit in faults:
            seconds = scene.inflict(fault, limit)
            figures[fault] = max(seconds, figures.get(fault, 0))
    if args.long:
        figures["ghosts"] = round(scene.await_no_ghosts(), 1)
        figures["idle ghost"] = idle_ghosts(scene)
    return figures


def disturb_all(run, args):
    scene = Scene(run)
    figures = {"went_on_after_seconds": disturb(scene, args), **scene.check()}
    return figures


if __name__ == "__main__":
    sys.exit(run_test("network_faults_test", __doc__, disturb_all))
