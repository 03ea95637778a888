"""The cluster of docker-compose.yml under test: all but Grafana, whose image cannot be pulled."""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import packed
from engine import ROOT, Failure, run

sys.path.insert(0, os.path.join(ROOT, "deploy", "supervisor"))
import ports  # noqa: E402

ONCE = ["certs", "config"]  # do their work and end
SERVICES = [*ONCE, "replay-0", "replay-1", "learner", "actor", "evaluator",
            "prometheus"]
IMAGES = ["certs", "prometheus", "replay_server", "actor", "learner"]
TAG = "test"
BUILD_SECONDS = 1800
TICK_SECONDS = 0.2


class Cluster:
    """`settings`: what TROUPE_SET is to hold.  `total_env_steps` may be changed between starts.
    `extra`: another compose file, on top."""

    def __init__(self, config, settings, total_env_steps, extra=None):
        self.total_env_steps = total_env_steps
        self.settings = list(settings)
        self._prometheus_port = ports.choose(1)[0]
        self.project = f"troupe-test-{os.getpid()}"
        files = ["docker-compose.yml", "docker-compose.override.yml", *([extra] if extra else [])]
        self._environment = dict(
            os.environ, COMPOSE_PROJECT_NAME=self.project, COMPOSE_FILE=":".join(files),
            COMPOSE_PROFILES="cpu,monitoring", TROUPE_TAG=TAG,
            TROUPE_CONFIG=f"/etc/troupe/{config}.txtpb",
            TROUPE_PROMETHEUS_PORT=str(self._prometheus_port),
            TROUPE_REVISION=run("git", "rev-parse", "HEAD", check=False).strip())

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.compose("down", "--volumes", "--timeout=5", check=False)

    def compose(self, *words, timeout=300, check=True):
        settings = [*self.settings, f"total_env_steps={self.total_env_steps}"]
        return run("docker-compose", *words, timeout=timeout, check=check,
                   env={**self._environment, "TROUPE_SET": " ".join(settings)})

    def build(self):
        """From nothing, or, if TROUPE_PACKED names a folder of built programs, with these."""
        built = os.environ.get("TROUPE_PACKED")
        if built:
            packed.build(built, IMAGES, TAG, self._environment["TROUPE_REVISION"], BUILD_SECONDS)
        else:
            self.compose("build", timeout=BUILD_SECONDS)

    def up(self, *words, services=SERVICES):
        self.compose("up", "--detach", *words, *services)

    def volume(self, name):
        return f"{self.project}_{name}"

    # Containers.

    def containers(self, service=None):
        """What `docker inspect` says of each, by name, without those of ONCE."""
        words = [f"--filter=label=com.docker.compose.project={self.project}"]
        if service:
            words.append(f"--filter=label=com.docker.compose.service={service}")
        ids = run("docker", "ps", "--all", "--quiet", *words).split()
        found = json.loads(run("docker", "inspect", *ids)) if ids else []
        return {each["Name"].lstrip("/"): each for each in found if service_of(each) not in ONCE}

    def unhealthy(self):
        return [name for name, each in self.containers().items() if health(each) != "healthy"]

    def await_healthy(self, number):
        """`number` of containers, all healthy."""
        self.wait_for(lambda: len(self.containers()) == number and not self.unhealthy(),
                      f"{number} healthy containers")

    def exit_codes(self):
        return {name: each["State"]["ExitCode"] if each["State"]["Status"] == "exited"
                else each["State"]["Status"] for name, each in self.containers().items()}

    def wait_for(self, condition, what, seconds=180):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise Failure(f"waited {seconds} s in vain for {what}:\n{self.describe()}")
            time.sleep(TICK_SECONDS)

    def describe(self):
        states = [f"{name}: {each['State']['Status']} ({each['State']['ExitCode']}), "
                  f"{health(each)}" for name, each in sorted(self.containers().items())]
        return "\n".join([*states, self.compose("logs", "--tail=15", check=False)[-8000:]])

    # What Prometheus knows.

    def query(self, expression):
        """The values of an instant query; empty too where Prometheus does not answer."""
        data = self._ask("query?" + urllib.parse.urlencode({"query": expression}))
        return [float(series["value"][1]) for series in data["result"]] if data else []

    def firing(self):
        """Names of the alerts that fire; empty too where Prometheus does not answer."""
        data = self._ask("alerts")
        alerts = data["alerts"] if data else []
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def _ask(self, what):
        """None: Prometheus does not answer."""
        url = f"http://127.0.0.1:{self._prometheus_port}/api/v1/{what}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except (OSError, urllib.error.URLError):
            return None

    def await_value(self, expression, accept, what):
        self.wait_for(lambda: any(map(accept, self.query(expression))), what)

    def env_steps(self):
        return max(self.query("sum(troupe_replay_env_steps_total)"), default=0)


def service_of(container):
    return container["Config"]["Labels"]["com.docker.compose.service"]


def health(container):
    return container["State"].get("Health", {}).get("Status", "none")
