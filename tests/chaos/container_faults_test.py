"""Faults of containers while a cluster of docker-compose trains: each role killed, the engine's own
restart of one that crashed, a shard and the learner cut off from the network, a shard paused.

  container_faults_test.py [--seconds S] [--only NAME]...

A fault lasts S seconds (5; by hand 60), a cut at least 35, which is when keepalives notice it.  Training
goes on, or does so within 5 s of the fault's end, and at last every row that a shard has acked is there
once.  A fault of a minute fires its own alert, and none fires another.  Prints one JSON line a fault;
exit code 1: something was violated."""

import argparse
import glob
import json
import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "containers"), os.path.dirname(__file__)]
from checker import check_rows, merge_ledgers, parse_row_log  # noqa: E402
from cluster import TAG, Cluster, health  # noqa: E402
from engine import Engine, Failure, run  # noqa: E402
from processes import NO_END, NUM_SHARDS, SETTINGS  # noqa: E402

CUT_SECONDS = 35
RESUME_SECONDS = 5
BACK_SECONDS = 60
# More than what a learner does with what it had fetched before the fault.
UPDATES = 20
NUM_CONTAINERS = 7
TICK_SECONDS = 0.05
# An alert comes with a fault that lasts, and its end ends it.
ALERTS = {"replay-0": "ReplayShardDown", "replay-1": "ReplayShardDown", "learner": "LearnerDown",
          "actor": "ActorsLost", "evaluator": "EvaluatorDown"}
# for: 30s, after two scrapes and an evaluation.
ALERT_SECONDS = 60
# Where a shard is silent, not gone, its actors' buffers are full before they move; what they cannot
# keep then is given up, and said for 5 minutes.
GIVEN_UP = "RowsGivenUp"


class Faults:
    """What is done to one container, and undone.  `address` finds it anew: it may have moved."""

    def __init__(self, cluster):
        self._cluster = cluster
        self._network = f"{cluster.project}_cluster"

    def container(self, service):
        return min(self._cluster.containers(service))

    def kill(self, service):
        name = self.container(service)
        run("docker", "kill", name)
        return lambda: run("docker", "start", name)

    def crash(self, service):
        name = self.container(service)
        os.kill(self._cluster.containers(service)[name]["State"]["Pid"], signal.SIGKILL)
        return lambda: None  # the engine starts it again

    def pause(self, service):
        name = self.container(service)
        run("docker", "pause", name)
        return lambda: run("docker", "unpause", name)

    def cut(self, service):
        name = self.container(service)
        run("docker", "network", "disconnect", self._network, name)
        return lambda: run("docker", "network", "connect", f"--alias={service}", self._network,
                           name)


class Watch:
    """Reads a container's counters where they are served, without Prometheus's delay."""

    def __init__(self, cluster):
        self._cluster = cluster

    def read(self, service, metric):
        """None: it does not answer."""
        for container in self._cluster.containers(service).values():
            networks = container["NetworkSettings"]["Networks"].values()
            for address in filter(None, (network["IPAddress"] for network in networks)):
                try:
                    with urllib.request.urlopen(f"http://{address}:9464/metrics",
                                                timeout=1) as answer:
                        text = answer.read().decode()
                except (OSError, urllib.error.URLError):
                    continue
                found = re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
                return sum(map(float, found)) if found else None
        return None

    def seconds_until_growth(self, service, metric, amount, seconds):
        """None: it did not grow by `amount`, within one life of the process, in so many seconds."""
        began = time.monotonic()
        first = None
        while (waited := time.monotonic() - began) < seconds:
            value = self.read(service, metric)
            if value is not None:
                first = value if first is None or value < first else first
                if value >= first + amount:
                    return round(waited, 2)
            time.sleep(TICK_SECONDS)
        return None


def matrix(seconds):
    """Name -> (fault, service, seconds that it lasts)."""
    kills = {f"kill {service}": ("kill", service, seconds)
             for service in ("replay-0", "learner", "actor", "evaluator", "prometheus")}
    cut = max(seconds, CUT_SECONDS)
    return {**kills, "crash replay-1": ("crash", "replay-1", 0),
            "pause replay-0": ("pause", "replay-0", seconds),
            "cut replay-1": ("cut", "replay-1", cut), "cut learner": ("cut", "learner", cut)}


class Test:
    def __init__(self, cluster):
        self._cluster = cluster
        self._faults = Faults(cluster)
        self._watch = Watch(cluster)
        self._may_linger = set()
        self.violations = []

    def updates(self, seconds):
        return self._watch.seconds_until_growth("learner", "troupe_learner_updates_total", UPDATES,
                                                seconds)

    def apply(self, name, fault, service, seconds):
        if service.startswith("replay") and fault in ("pause", "cut"):
            self._may_linger = {GIVEN_UP}
        end = getattr(self._faults, fault)(service)
        began = time.monotonic()
        goes_on = self.updates(max(seconds, RESUME_SECONDS))
        fired = self._cluster.firing()
        while time.monotonic() < began + seconds:
            time.sleep(TICK_SECONDS)
            fired |= self._cluster.firing()
        end()
        resumed = self.updates(BACK_SECONDS)
        if resumed is None or resumed > RESUME_SECONDS:
            self.violations.append(f"{name}: training went on after {resumed} s")
        self.await_back(name, service)
        fired |= self.await_quiet(name)
        self.check_alerts(name, service, seconds, fired)
        print(json.dumps({"fault": name, "seconds": seconds, "goes_on_after": goes_on,
                          "resumes_after": resumed, "alerts": sorted(fired)}), flush=True)

    def await_quiet(self, name):
        """Until no alert fires; the names of those that did."""
        fired, firing = set(), set()

        def is_quiet():
            firing.clear()
            firing.update(self._cluster.firing())
            fired.update(firing)
            return firing <= self._may_linger
        try:
            self._cluster.wait_for(is_quiet, f"an end of the alerts after {name}")
        except Failure as failure:
            raise Failure(f"still firing: {sorted(firing)}; {failure}") from failure
        return fired

    def check_alerts(self, name, service, seconds, fired):
        own = {ALERTS[service]} if service in ALERTS else set()
        fired = fired - self._may_linger
        if not fired <= own or (seconds >= ALERT_SECONDS and fired != own):
            self.violations.append(f"{name}, {seconds} s: alerts {sorted(fired)}, not "
                                   f"{sorted(own)}")

    def await_back(self, name, service):
        """The container is well, and does what it is for."""
        self._cluster.wait_for(
            lambda: all(health(each) == "healthy" for each in
                        self._cluster.containers(service).values()), f"{service} after {name}")
        if service.startswith("replay"):
            # Actors that moved to another shard stay there; the learner draws from this one again.
            back = self._watch.seconds_until_growth(service, "troupe_replay_windows_sampled_total",
                                                    1, BACK_SECONDS)
            if back is None:
                self.violations.append(f"{name}: nothing was drawn from {service} in "
                                       f"{BACK_SECONDS} s")

    def check_rows(self):
        """Every acked row, once, in the logs of shards that were stopped in order."""
        ledgers = []
        folder = run("docker", "volume", "inspect", "--format={{.Mountpoint}}",
                     self._cluster.volume("ledgers")).strip()
        for path in glob.glob(os.path.join(folder, "*.jsonl")):
            with open(path, encoding="utf-8", errors="replace") as file:
                ledgers.append(file.read())
        logs = {}
        for i in range(NUM_SHARDS):
            logs[i] = parse_row_log(run(
                "docker", "run", "--rm", "--entrypoint=troupe-row-log",
                f"--volume={self._cluster.volume(f'replay_{i}')}:/data:ro",
                f"troupe/replay_server:{TAG}", "/data/replay.rows"))
        figures, found = check_rows(merge_ledgers(ledgers), logs)
        self.violations += found
        if not figures["rows_acked"]:
            self.violations.append("no ledger says that a row was acked")
        return figures


def run_faults(cluster, args):
    test = Test(cluster)
    cluster.up("--scale=actor=2")
    cluster.await_healthy(NUM_CONTAINERS)
    if test.updates(BACK_SECONDS) is None:
        raise Failure(f"training does not begin:\n{cluster.describe()}")
    for name, (fault, service, seconds) in matrix(args.seconds).items():
        if not args.only or name in args.only:
            test.apply(name, fault, service, seconds)
    cluster.compose("stop")
    print(json.dumps({**test.check_rows(), "violations": len(test.violations)}))
    for violation in test.violations:
        print(f"container_faults_test: {violation}", file=sys.stderr)
    return 1 if test.violations else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="how long a fault lasts")
    parser.add_argument("--only", action="append", help="a fault by name, such as 'cut learner'")
    args = parser.parse_args()
    with Engine():
        with Cluster("sac_pendulum", SETTINGS, NO_END, "tests/containers/ledgers.yml") as cluster:
            cluster.build()
            return run_faults(cluster, args)


if __name__ == "__main__":
    sys.exit(main())
