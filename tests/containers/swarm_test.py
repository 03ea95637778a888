"""Three Docker engines, each in a network namespace and with a host name of its own, joined as a Swarm:
docker-compose.yml as a stack, actors on two of them.  Training goes on when one of these two dies, and
over a network of 50 ms and 1 % loss each way; the rates are printed as a JSON line.

  swarm_test.py [--seconds S] [--config NAME]

Needs root.  Images as in cluster.py; TROUPE_PACKED as there."""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import packed
from cluster import BUILD_SECONDS, IMAGES, TAG, Cluster
from engine import ROOT, Engine, Failure, run

HERE = os.path.dirname(os.path.abspath(__file__))
STACK = "troupe"
ACTORS = 4
DELAY_MS, LOSS_PERCENT = 50, 1
NO_END = 10**9
# Until a Swarm gives up a node and starts its tasks elsewhere.
REPLACE_SECONDS = 120
# Prometheus looks every 5 s.
PAUSE_SECONDS = 20
TICK_SECONDS = 0.5


class Node:
    """An engine in a network namespace, whose containers die with it."""

    def __init__(self, number, folder):
        self.name = f"engine{number}"
        self.address = f"10.77.0.{number}"
        self.folder = os.path.join(folder, self.name)
        self.socket = f"unix://{self.folder}/sock"
        self._daemon = None

    def prepare(self):
        os.makedirs(self.folder)
        run("ip", "netns", "add", self.name)

    def start(self):
        for words in (["link", "set", "lo", "up"], ["link", "set", "wan", "up"],
                      ["address", "add", f"{self.address}/24", "dev", "wan"]):
            run("ip", "-n", self.name, *words)
        with open(os.path.join(self.folder, "log"), "wb") as log:
            self._daemon = subprocess.Popen(
                ["nsenter", f"--net=/var/run/netns/{self.name}", "unshare", "--uts", "sh", "-c",
                 f"hostname {self.name}; exec dockerd --data-root {self.folder}/lib --exec-root "
                 f"{self.folder}/run --pidfile {self.folder}/pid --host {self.socket}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True)
        await_true(lambda: self.docker("version", check=False).count("Version:") >= 2,
                   f"{self.name} to answer", 60)

    def docker(self, *words, **options):
        return run("docker", "--host", self.socket, *words, **options)

    def load(self, names):
        """Copies images from the machine's own engine."""
        with subprocess.Popen(["docker", "save", *(f"troupe/{name}:{TAG}" for name in names)],
                              stdout=subprocess.PIPE) as save:
            subprocess.run(["docker", "--host", self.socket, "load"], stdin=save.stdout,
                           stdout=subprocess.DEVNULL, check=True)

    def kill(self):
        """As if its machine lost its power: the engine first, that it sees nothing of it."""
        if self._daemon is None:
            return
        self._daemon.kill()
        self._daemon.wait()
        self._daemon = None
        for _ in range(20):
            left = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if self._owns(pid)]
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
            if not left:
                return
            time.sleep(0.1)

    def _owns(self, pid):
        """A process of one of its containers, a shim, or its containerd."""
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if self.folder.encode() in file.read():
                    return True
            with open(f"/proc/{pid}/mountinfo", "rb") as file:
                return self.folder.encode() in file.readline()
        return False

    def remove(self):
        self.kill()
        with open("/proc/self/mounts", encoding="utf-8") as file:
            mounts = [line.split()[1] for line in file if self.folder in line]
        for mount in reversed(mounts):
            run("umount", "--lazy", mount, check=False)
        run("ip", "netns", "delete", self.name, check=False)


def await_true(condition, what, seconds):
    """Returns the seconds that it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() > began + seconds:
            raise Failure(f"waited {seconds} s in vain for {what}")
        time.sleep(TICK_SECONDS)
    return round(time.monotonic() - began, 1)


@contextlib.contextmanager
def congestion_control():
    """Containers may choose that of swarm.yml."""
    path = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"
    with open(path, encoding="ascii") as file:
        before = file.read()
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{before.strip()} cubic")
        yield
    finally:
        with open(path, "w", encoding="ascii") as file:
            file.write(before)


class Network:
    """wan_switch.py with a port for each node."""

    def __init__(self, nodes):
        self._switch = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "wan_switch.py"), *(node.name for node in nodes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._switch.stdout.readline() != "ready\n":
            raise Failure("the switch did not start")

    def command(self, line):
        self._switch.stdin.write(line + "\n")
        self._switch.stdin.flush()
        if self._switch.stdout.readline() != line + "\n":
            raise Failure(f"the switch did not take '{line}'")

    def close(self):
        self._switch.stdin.close()
        self._switch.wait(timeout=10)


class Stack:
    def __init__(self, nodes, folder, config):
        self._manager = nodes[0]
        self._nodes = nodes
        run("deploy/certs", os.path.join(folder, "certs"))
        authority = os.path.join(folder, "authority.pem")
        with open(authority, "w", encoding="utf-8") as file:
            for name in ("cert", "key"):
                with open(os.path.join(folder, "certs", "authority", f"{name}.pem"),
                          encoding="utf-8") as part:
                    file.write(part.read())
        self._environment = dict(
            os.environ, TROUPE_TAG=TAG, TROUPE_AUTHORITY=authority,
            TROUPE_CONFIG=f"/etc/troupe/{config}.txtpb",
            TROUPE_SET=f"total_env_steps={NO_END}",
            DOCKER_HOST=self._manager.socket)

    def join(self):
        manager = self._manager
        manager.docker("swarm", "init", f"--advertise-addr={manager.address}")
        token = manager.docker("swarm", "join-token", "-q", "worker").strip()
        for node in self._nodes[1:]:
            node.docker("swarm", "join", f"--token={token}", f"--advertise-addr={node.address}",
                        f"{manager.address}:2377")

    def deploy(self):
        run("docker", "stack", "deploy", "--resolve-image=never",
            "--compose-file=docker-compose.yml", "--compose-file=tests/containers/swarm.yml", STACK,
            env=self._environment)

    def query(self, expression):
        """The first value of an instant query; None: none, or no Prometheus."""
        found = self._manager.docker("ps", "--quiet",
                                     f"--filter=name={STACK}_prometheus").split()
        if not found:
            return None
        answer = self._manager.docker("exec", found[0], "promtool", "query", "instant",
                                      "http://localhost:9090", expression, check=False)
        value = re.search(r"=> (\S+) @", answer)
        return float(value[1]) if value else None

    def steps(self):
        return self.query("sum(troupe_replay_env_steps_total)") or 0

    def updates(self):
        return self.query("sum(troupe_learner_updates_total)") or 0

    def actors(self):
        return self.query('count(up{role="actor"} == 1)') or 0

    def figures(self, seconds):
        """Over so many seconds; versions that the policies of new rows were behind."""
        steps, updates, began = self.steps(), self.updates(), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        return {"env_steps_per_second": round((self.steps() - steps) / took),
                "updates_per_second": round((self.updates() - updates) / took),
                "policy_lag_versions": self.query(
                    f"sum(rate(troupe_replay_version_lag_sum_total[{seconds:.0f}s])) / "
                    f"sum(rate(troupe_replay_version_lag_rows_total[{seconds:.0f}s]))")}

    def describe(self):
        return (self._manager.docker("node", "ls", check=False) +
                self._manager.docker("service", "ls", check=False) +
                self._manager.docker("service", "ps", "--no-trunc", f"{STACK}_learner",
                                     f"{STACK}_actor", f"{STACK}_replay-0", check=False))


def check(stack, network, victim, seconds):
    stack.join()
    stack.deploy()
    began = time.monotonic()
    await_true(lambda: stack.actors() == ACTORS and stack.updates() > 0, "training", 300)
    figures = {"trains_after_seconds": round(time.monotonic() - began, 1)}
    figures["at_home"] = stack.figures(seconds)
    network.command(f"delay {DELAY_MS}")
    network.command(f"loss {LOSS_PERCENT}")
    time.sleep(seconds / 2)
    figures[f"{DELAY_MS} ms, {LOSS_PERCENT} % each way"] = stack.figures(seconds)
    network.command("delay 0")
    network.command("loss 0")

    network.command(f"cut {victim.name}")
    victim.kill()
    figures["an engine killed"] = watch_replacement(stack)
    figures["then"] = stack.figures(seconds)
    return figures


def watch_replacement(stack):
    """Until the lost actors run elsewhere: training must not stand still meanwhile."""
    began = changed = time.monotonic()
    last, pause, lost = stack.updates(), 0, False
    while not lost or stack.actors() < ACTORS:
        lost = lost or stack.actors() < ACTORS
        updates = stack.updates()
        if updates > last:
            last, changed = updates, time.monotonic()
        pause = max(pause, time.monotonic() - changed)
        if pause > PAUSE_SECONDS:
            raise Failure(f"no update for {pause:.0f} s after an engine was killed")
        if time.monotonic() > began + REPLACE_SECONDS:
            raise Failure(f"there are not {ACTORS} actors again after {REPLACE_SECONDS} s")
        time.sleep(TICK_SECONDS)
    return {"longest_pause_of_updates_seconds": round(pause, 1),
            "actors_replaced_after_seconds": round(time.monotonic() - began, 1)}


def make_images():
    if os.environ.get("TROUPE_PACKED"):
        packed.build(os.environ["TROUPE_PACKED"], IMAGES, TAG, "unknown", BUILD_SECONDS)
    else:
        Cluster("sac_pendulum", [], NO_END).build()


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="that a rate is taken over")
    parser.add_argument("--config", default="sac_half_cheetah")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="troupe_swarm_", dir="/var/tmp")
    nodes = [Node(number, folder) for number in (1, 2, 3)]
    network = None
    try:
        for node in nodes:
            node.prepare()
        network = Network(nodes)
        with Engine():
            make_images()
            for node in nodes:
                node.start()
            nodes[0].load(IMAGES)
            for node in nodes[1:]:
                node.load(["certs", "actor"])
        stack = Stack(nodes, folder, args.config)
        try:
            with congestion_control():
                print(json.dumps(check(stack, network, nodes[2], args.seconds)))
        except Failure as failure:
            raise Failure(f"{failure}\n{stack.describe()}") from failure
    finally:
        for node in nodes:
            node.remove()
        if network is not None:
            network.close()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
