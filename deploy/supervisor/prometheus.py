"""Debian's Prometheus for one run: configuration, targets, command."""

import json
import os
import shutil

CONFIG = """global:
  scrape_interval: 5s
  evaluation_interval: 5s
rule_files: [{rules}]
scrape_configs:
  - job_name: troupe
    file_sd_configs:
      - files: [{targets}]
        refresh_interval: 5s
"""


# Rules and boards, the same wherever Troupe runs.
SHARED = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "prometheus"))


class Prometheus:
    """`targets` follow the processes: a restarted one serves its metrics on another port."""

    def __init__(self, directory, port):
        self._folder = directory.file("prometheus")
        self._directory = directory
        self._targets = {}
        self.port = port
        os.makedirs(self._folder, exist_ok=True)
        directory.write("prometheus/prometheus.yml", CONFIG.format(
            rules=json.dumps(os.path.join(SHARED, "rules.yml")),
            targets=json.dumps(os.path.join(self._folder, "targets.json"))))
        self._write_targets()

    @staticmethod
    def available():
        return shutil.which("prometheus") is not None

    def command(self):
        return ["prometheus", f"--config.file={self._folder}/prometheus.yml",
                f"--storage.tsdb.path={self._folder}/data",
                f"--web.console.templates={SHARED}/consoles",
                f"--web.console.libraries={SHARED}/console_libraries",
                f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"]

    def boards(self):
        """Address of the page to look at first."""
        return f"http://127.0.0.1:{self.port}/consoles/training.html"

    def follow(self, ports):
        """`ports`: name of a process -> its metrics port."""
        if ports != self._targets:
            self._targets = dict(ports)
            self._write_targets()

    def _write_targets(self):
        groups = [{"targets": [f"127.0.0.1:{port}"],
                   "labels": {"process": name, "role": name.rsplit("-", 1)[0]}}
                  for name, port in sorted(self._targets.items())]
        self._directory.write("prometheus/targets.json", json.dumps(groups, indent=2) + "\n")
