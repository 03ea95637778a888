"""Every metric that deploy/prometheus/rules.yml names is one that a real program exposes.

    metric_names_test.py BIN_DIR CONFIG
"""

import os
import re
import sys
import unittest
import urllib.request

from programs import ProgramTest, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
RULES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))),
                     "deploy", "prometheus", "rules.yml")
BIN_DIR, CONFIG = sys.argv[1:3]


def names_in_rules():
    """Names of metrics, but for those that Prometheus itself makes (up, level:metric:operations)."""
    with open(RULES, encoding="utf-8") as file:
        text = re.sub(r"#.*|\{\{.*?\}\}|.*summary:.*", "", file.read())
    return set(re.findall(r"(?<![\w:])(?:troupe|process)_\w+(?![\w:])", text))


class MetricNames(ProgramTest):
    shard_port = None

    def start(self, program, *flags):
        """Returns the port of its metrics."""
        port_file = os.path.join(self.folder, f"{program}.metrics")
        command = [os.path.join(BIN_DIR, program), f"--config={CONFIG}", "--metrics_port=0",
                   f"--metrics_port_file={port_file}", *flags]
        if self.shard_port:
            command.append(f"--set=shards=127.0.0.1:{self.shard_port}")
        with open(os.path.join(self.folder, f"{program}.log"), "w") as log:
            self.spawn(command, output=log)
        return self.port(port_file)

    @staticmethod
    def port(path):
        wait_for(lambda: os.path.exists(path), path)  # it appears with its content
        with open(path, encoding="utf-8") as file:
            return int(file.read())

    @staticmethod
    def exposed(ports):
        names = set()
        for port in ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                names.update(re.findall(r"^(\w+)[{ ]", answer.read().decode(), re.MULTILINE))
        return names

    def test_all_are_exposed(self):
        file = os.path.join(self.folder, "port")
        ports = [self.start("troupe-replay-server", "--listen=127.0.0.1:0", f"--port_file={file}",
                            f"--data_dir={self.folder}/shard")]
        self.shard_port = self.port(file)
        ports += [self.start("troupe-learner", f"--run_dir={self.folder}"),
                  self.start("troupe-actor", "--actor_index=0")]
        wanted = names_in_rules()
        self.assertGreater(len(wanted), 15)
        seen = set()

        def all_seen():
            seen.update(self.exposed(ports))
            return wanted <= seen

        try:
            wait_for(all_seen, "all metrics")
        except AssertionError:
            self.fail(f"no program exposes {sorted(wanted - seen)}")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
