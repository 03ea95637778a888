"""A live cluster of deploy/up with its Prometheus: every query of every board, rule and alert finds
what it asks for, the pages are served, and nothing is alarmed by a healthy run.

    monitoring_test.py BUILD_DIR
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEPLOY = os.path.join(ROOT, "deploy")
sys.path.insert(0, os.path.join(DEPLOY, "monitoring"))

from boards import BOARDS  # noqa: E402: it lies there

TIMEOUT = 50  # seconds, for all series to be there
# A run that no machine ends during the test, with an evaluation and a line of statistics at once.
SETS = ["total_env_steps=100000000", "actor.num_envs=2", "evaluator.episodes=1",
        "evaluator.interval_env_steps=200", "learner.sac.random_steps=300",
        "learner.sac.batch_size=32", "learner.sac.actor.hidden_sizes=16",
        "learner.sac.critic.hidden_sizes=16", "learner.log_interval_updates=50",
        "tables.capacity_rows=100000"]
# A selector: a name with its matchers.  Names with colons are recording rules.
SELECTOR = re.compile(r"(?<![\w:])((?:troupe|process|job|table|up\b|scrape)[\w:]*)(\{[^}]*\})?")
WORDS = {"job", "process", "table"}  # labels


def board_queries():
    return [(f"{board.name}: {panel.title}", query.expr.replace("$job", "troupe"))
            for board in BOARDS for panel in board.panels() for query in panel.queries]


class Monitoring(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="troupe_monitoring_")
        cls.run_dir = os.path.join(cls.folder.name, "run")
        command = [os.path.join(DEPLOY, "up"), "--no-build", "--build_dir", BUILD_DIR, "--config",
                   os.path.join(DEPLOY, "configs", "sac_pendulum.txtpb"), "--run_dir", cls.run_dir,
                   *(f"--set={word}" for word in SETS)]
        with open(os.path.join(cls.folder.name, "log"), "w") as log:
            cls.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        cls.address = cls.wait_for(cls.ready_prometheus, "Prometheus")

    @classmethod
    def tearDownClass(cls):
        cls.process.send_signal(signal.SIGINT)
        cls.process.wait(timeout=60)
        cls.folder.cleanup()

    @classmethod
    def log(cls):
        with open(os.path.join(cls.folder.name, "log"), encoding="utf-8") as file:
            return file.read()

    @classmethod
    def ready_prometheus(cls):
        """Its address, once it answers."""
        for address in re.findall(r"boards at (http://[^/]+)", cls.log())[-1:]:
            try:
                with urllib.request.urlopen(address + "/-/ready", timeout=5):
                    return address
            except OSError:
                continue  # it is about to start
        return None

    @classmethod
    def wait_for(cls, condition, what):
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline and cls.process.poll() is None:
            result = condition()
            if result:
                return result
            time.sleep(0.2)
        raise AssertionError(f"waited in vain for {what}; deploy/up says:\n{cls.log()}")

    def get(self, path, **values):
        query = "?" + urllib.parse.urlencode(values) if values else ""
        try:
            with urllib.request.urlopen(self.address + path + query, timeout=10) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}{query}: {error.read().decode()}") from None

    def found(self, expr):
        """The series that an expression gives."""
        return json.loads(self.get("/api/v1/query", query=expr))["data"]["result"]

    def await_series(self, wanted):
        """`wanted`: (what it is of, expression)."""
        missing = list(wanted)

        def all_found():
            missing[:] = [each for each in missing if not self.found(each[1])]
            return not missing

        try:
            self.wait_for(all_found, "series")
        except AssertionError as error:
            empty = "\n".join(f"{name}: {expr}" for name, expr in missing)
            self.fail(f"nothing is found by\n{empty}\n{error}")

    def rules(self):
        groups = self.wait_for(
            lambda: json.loads(self.get("/api/v1/rules"))["data"]["groups"], "rules")
        return [rule for group in groups for rule in group["rules"]]

    def test_every_query_of_every_board_finds_something(self):
        queries = board_queries()
        self.assertGreater(len(queries), 50)
        self.await_series(queries)

    def test_every_rule_is_evaluated_over_series_that_exist(self):
        rules = self.rules()
        self.assertGreater(len(rules), 20)
        selectors = {(rule["name"], name + matchers) for rule in rules
                     for name, matchers in SELECTOR.findall(rule["query"]) if name not in WORDS}
        self.assertGreater(len(selectors), 30)
        self.await_series(selectors)
        self.wait_for(lambda: all(rule["health"] == "ok" for rule in self.rules()), "evaluations")

    def test_a_healthy_run_alarms_nobody(self):
        self.await_series([("stored", "troupe_replay_rows > 0")])
        alerts = json.loads(self.get("/api/v1/alerts"))["data"]["alerts"]
        # The disk is this machine's, not the run's.
        names = {alert["labels"]["alertname"] for alert in alerts} - {"DiskNearlyFull"}
        self.assertEqual(names, set())

    def test_the_boards_are_pages_of_prometheus(self):
        for board in BOARDS:
            page = self.get(f"/consoles/{board.name}.html")
            self.assertIn(f"<title>{board.title} - Troupe</title>", page)
            self.assertNotIn("{{", page)
            content = re.search(r'<script id="board" type="application/json">(.*?)</script>', page,
                                re.DOTALL)[1]
            titles = [panel["title"] for section in json.loads(content)["sections"]
                      for panel in section["panels"]]
            self.assertEqual(titles, [panel.title for panel in board.panels()])
            addresses = set(re.findall(r"https?://[^\s\"']+", page))
            self.assertEqual(addresses, {"http://www.w3.org/2000/svg"})  # a name, not asked for


if __name__ == "__main__":
    BUILD_DIR = sys.argv.pop(1)
    unittest.main()
