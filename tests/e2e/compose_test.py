"""docker-compose up on a real engine: images built, certificates made, Pendulum trained to its return
over mutual TLS, actors scaled while it trains, everything stopped and started again.

  compose_test.py [-v]

Installs Docker, starts its daemon and makes the base image where they are missing."""

import json
import os
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "containers"))
from cluster import TAG, Cluster, service_of  # noqa: E402
from engine import Engine, Failure, run  # noqa: E402

# Pendulum is solved by then.  The run ends so many steps after it was started again.
ENV_STEPS = 20000
LAST_ENV_STEPS = 2000
NO_END = 10**9
RETURN = -200
STOP_SECONDS = 10
FINISH_SECONDS = 420
PROGRAMS = ("replay_server", "actor", "learner", "prometheus")
# Shards, learner, evaluator and Prometheus.
BESIDE_ACTORS = 5


def say(text):
    print(f"compose_test: {time.monotonic() - BEGAN:.0f} s: {text}", file=sys.stderr, flush=True)


class Compose(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("sac_pendulum", ["evaluator.episodes=20"], NO_END)
        cls.enterClassContext(Engine())
        cls.enterClassContext(cls.cluster)
        say("building the images")
        cls.cluster.build()
        for name in PROGRAMS:
            size = int(run("docker", "inspect", "--format={{.Size}}", f"troupe/{name}:{TAG}"))
            say(f"{name}: {size / 1e6:.0f} MB")

    def setUp(self):
        self.cluster.compose("down", "--volumes", "--timeout=5")

    def test_a_cluster_trains_is_scaled_stopped_and_started_again(self):
        self.check_images()
        say("starting")
        self.cluster.up("--scale=actor=2")
        self.cluster.await_healthy(BESIDE_ACTORS + 2)
        say("all healthy")
        self.check_containers()
        self.check_tls()
        self.check_operator()
        self.scale(6)
        self.scale(2)
        self.stop()
        self.finish()
        self.stop()

    def test_a_wrong_configuration_starts_nothing_and_is_named(self):
        right = self.cluster.settings
        self.cluster.settings = ["learner.sac.gama=0.9"]
        try:
            with self.assertRaises(Failure):
                self.cluster.up()
            self.assertIn("gamma", self.cluster.compose("logs", "config"))
            self.assertEqual([name for name in self.cluster.containers() if "replay" in name], [])
        finally:
            self.cluster.settings = right

    # The steps of it.

    def check_images(self):
        for name in PROGRAMS:
            config, = json.loads(run("docker", "inspect", f"troupe/{name}:{TAG}"))
            labels = config["Config"]["Labels"]
            self.assertRegex(labels["org.opencontainers.image.version"], r"^\d+\.\d+\.\d+$")
            self.assertNotIn(labels["org.opencontainers.image.revision"], ("", "unknown"), name)
        libraries = run("docker", "run", "--rm", "--entrypoint=ls", f"troupe/replay_server:{TAG}",
                        "/usr/local/lib")
        self.assertIn("libgrpc", libraries)
        self.assertNotIn("torch", libraries)

    def check_containers(self):
        for name, container in self.cluster.containers().items():
            self.assertEqual(container["Config"]["User"], "troupe", name)
            self.assertTrue(container["HostConfig"]["ReadonlyRootfs"], name)
            self.assertGreater(container["HostConfig"]["Memory"], 0, name)
            self.assertEqual(container["RestartCount"], 0, name)

    def ask_health(self, role, *flags):
        """Exit 0 of a shard's own program, asking from another container with a role's keys."""
        volume = f"--volume={self.cluster.volume(role + '_tls')}:/certs:ro"
        try:
            run("docker", "run", "--rm", volume, f"--network={self.cluster.project}_cluster",
                f"troupe/replay_server:{TAG}", "--health", "--listen=replay-0:7777",
                "--metrics_port=-1", *flags)
        except Failure as failure:
            return str(failure)
        return ""

    def check_tls(self):
        self.assertEqual(self.ask_health("operator", "--tls_dir=/certs"), "")
        self.assertIn("no health", self.ask_health("operator", "--insecure"))

    def check_operator(self):
        status = json.loads(self.cluster.compose("run", "--rm", "-T", "operator", "status",
                                                 "--json"))
        self.assertEqual(len(status["shards"]), 2, status)

    def scale(self, actors):
        steps = self.cluster.env_steps()
        self.cluster.up(f"--scale=actor={actors}")
        self.cluster.await_healthy(BESIDE_ACTORS + actors)
        self.cluster.await_value('count(up{role="actor"} == 1)', lambda n: n == actors,
                                 f"Prometheus to find {actors} actors")
        self.cluster.wait_for(lambda: self.cluster.env_steps() > steps, "more steps")
        self.steps = self.cluster.env_steps()
        say(f"{actors} actors, {self.steps:.0f} steps")

    def stop(self):
        began = time.monotonic()
        self.cluster.compose("stop")
        seconds = time.monotonic() - began
        say(f"stopped within {seconds:.1f} s")
        codes = self.cluster.exit_codes()
        self.assertEqual(set(codes.values()), {0}, codes)
        self.assertLess(seconds, STOP_SECONDS)

    def finish(self):
        total = max(ENV_STEPS, int(self.steps) + LAST_ENV_STEPS)
        say(f"starting again, to {total} steps")
        self.cluster.total_env_steps = total
        self.cluster.up("--scale=actor=2")
        ending = ("learner", "actor", "evaluator")
        self.cluster.wait_for(
            lambda: all(each["State"]["Status"] == "exited"
                        for each in self.cluster.containers().values()
                        if service_of(each) in ending), "the run to end", FINISH_SECONDS)
        evaluator, = self.cluster.containers("evaluator")
        with tempfile.TemporaryDirectory() as folder:
            run("docker", "cp", f"{evaluator}:/data/evaluations.jsonl", folder)
            with open(os.path.join(folder, "evaluations.jsonl"), encoding="utf-8") as file:
                evaluations = [json.loads(line) for line in file]
        last = evaluations[-1]
        best = max(evaluations, key=lambda line: line["return_mean"])
        say(f"trained: last {last}, best {best}")
        self.assertGreaterEqual(last["env_steps"], total)
        self.assertEqual(last["episodes"], 20)
        self.assertGreaterEqual(best["return_mean"], RETURN)


if __name__ == "__main__":
    BEGAN = time.monotonic()
    unittest.main()
