"""Every metric that a rule or a board names is one that a real program exposes, and promtool finds
no fault with what each program says.

    metric_names_test.py BIN_DIR CONFIG
"""

import os
import re
import subprocess
import sys
import unittest
import urllib.request

from programs import ProgramTest, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
DEPLOY = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "deploy")
sys.path += [os.path.join(DEPLOY, "monitoring"), os.path.join(DEPLOY, "supervisor")]

import metrics as supervisor_metrics  # noqa: E402: they lie there
from boards import BOARDS  # noqa: E402
from child import Child  # noqa: E402

BIN_DIR, CONFIG = sys.argv[1:3]


def rules_and_queries():
    with open(os.path.join(DEPLOY, "prometheus", "rules.yml"), encoding="utf-8") as file:
        rules = re.sub(r"#.*|summary: >-\n(?: {12}.*\n)+", "", file.read())
    queries = [query.expr for board in BOARDS for panel in board.panels()
               for query in panel.queries]
    return "\n".join([rules, *queries])


def names_in(text):
    """Names of metrics, but for those that Prometheus makes (up, level:metric:operations)."""
    names = set()
    for prefix, choices in re.findall(r"(troupe_\w+_)\(([\w|]+)\)", text):
        names.update(prefix + choice for choice in choices.split("|"))
    names.update(re.findall(r"(?<![\w:])(?:troupe|process)_\w+(?![\w:(])", text))
    return names


class MetricNames(ProgramTest):
    shard_port = None

    def start(self, name, program, *flags):
        """Returns the port of its metrics."""
        port_file = os.path.join(self.folder, f"{name}.metrics")
        command = [os.path.join(BIN_DIR, program), f"--config={CONFIG}", "--metrics_port=0",
                   f"--metrics_port_file={port_file}", *flags]
        if self.shard_port:
            command.append(f"--set=shards=127.0.0.1:{self.shard_port}")
        with open(os.path.join(self.folder, f"{name}.log"), "w") as log:
            self.spawn(command, output=log)
        return self.port(port_file)

    @staticmethod
    def port(path):
        wait_for(lambda: os.path.exists(path), path)  # it appears with its content
        with open(path, encoding="utf-8") as file:
            return int(file.read())

    def start_all(self):
        """Name of a process -> port of its metrics."""
        file = os.path.join(self.folder, "port")
        ports = {"shard": self.start("shard", "troupe-replay-server", "--listen=127.0.0.1:0",
                                     f"--port_file={file}", f"--data_dir={self.folder}/shard")}
        self.shard_port = self.port(file)
        ports["learner"] = self.start("learner", "troupe-learner", f"--run_dir={self.folder}")
        ports["actor"] = self.start("actor", "troupe-actor", "--actor_index=0")
        ports["evaluator"] = self.start("evaluator", "troupe-actor", "--evaluate",
                                        f"--output_dir={self.folder}/evaluator")
        supervisor = supervisor_metrics.Metrics(lambda: [Child("shard-0", ["true"], "/dev/null")])
        self.addCleanup(supervisor.stop)
        ports["supervisor"] = supervisor.port
        return ports

    @staticmethod
    def text(port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            return answer.read().decode()

    def test_all_are_exposed_and_promtool_is_content(self):
        ports = self.start_all()
        wanted = names_in(rules_and_queries())
        self.assertGreater(len(wanted), 50)
        seen = set()

        def all_seen():
            for port in ports.values():
                seen.update(re.findall(r"^(\w+)[{ ]", self.text(port), re.MULTILINE))
            return wanted <= seen

        try:
            wait_for(all_seen, "all metrics")
        except AssertionError:
            self.fail(f"no program exposes {sorted(wanted - seen)}")
        for name, port in ports.items():
            with self.subTest(program=name):
                result = subprocess.run(["promtool", "check", "metrics"], input=self.text(port),
                                        text=True, capture_output=True, check=False)
                self.assertEqual((result.returncode, result.stdout + result.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
