"""The boards: what is in the repository is what deploy/monitoring makes, Grafana knows its model of
them in full, and every query is one that Prometheus parses."""

import glob
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

HERE = os.path.dirname(os.path.abspath(__file__))
DEPLOY = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "deploy")
sys.path.insert(0, os.path.join(DEPLOY, "monitoring"))

from boards import BOARDS  # noqa: E402: it lies there

COLUMNS = 24
# Of the data source's annotations, which are no part of the model of a dashboard.
OF_PROMETHEUS = {"/annotations/list[0]/titleFormat", "/annotations/list[0]/textFormat"}


def dashboards():
    for path in sorted(glob.glob(os.path.join(DEPLOY, "grafana", "dashboards", "*.json"))):
        with open(path, encoding="utf-8") as file:
            yield os.path.basename(path), json.load(file)


def differences(ours, theirs, path=""):
    """Paths of what is not the same in both, or only in ours."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from differences(value, theirs[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, value in enumerate(ours):
            yield from differences(value, theirs[i], f"{path}[{i}]")
    elif ours != theirs:
        yield path


def cells(position):
    return {(x, y) for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])}


class GeneratedFiles(unittest.TestCase):
    def test_are_up_to_date(self):
        result = subprocess.run([os.path.join(DEPLOY, "monitoring", "generate.py"), "--check"],
                                capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)


class Grafana(unittest.TestCase):
    def test_knows_every_field_of_the_boards(self):
        register_default_plugins()
        found = list(dashboards())
        self.assertEqual([name for name, _ in found], ["system.json", "training.json"])
        for name, ours in found:
            theirs = json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))
            self.assertEqual(set(differences(ours, theirs)), OF_PROMETHEUS, name)

    def test_finds_boards_by_fixed_names_and_data_by_the_provisioned_source(self):
        with open(os.path.join(DEPLOY, "grafana", "datasources", "prometheus.yml"),
                  encoding="utf-8") as file:
            source = re.search(r"^ +uid: (\S+)", file.read(), re.MULTILINE)[1]
        uids = set()
        for name, board in dashboards():
            self.assertTrue(8 <= len(board["uid"]) <= 40, name)
            uids.add(board["uid"])
            text = json.dumps(board)
            self.assertEqual(set(re.findall(r'"type": "prometheus", "uid": "([^"]*)"', text)),
                             {source}, name)
        self.assertEqual(uids, {"troupe-training", "troupe-system"})

    def test_has_room_for_every_panel(self):
        for name, board in dashboards():
            taken = set()
            ids = [panel["id"] for panel in board["panels"]]
            self.assertEqual(len(ids), len(set(ids)), name)
            for panel in board["panels"]:
                position = panel["gridPos"]
                self.assertLessEqual(position["x"] + position["w"], COLUMNS, panel["title"])
                self.assertFalse(taken & cells(position), panel["title"])
                taken |= cells(position)

    def test_knows_the_units_and_tells_queries_apart(self):
        known = {value for value in vars(units).values() if isinstance(value, str)}
        for _, board in dashboards():
            for panel in board["panels"]:
                if panel["type"] == "row":
                    continue
                self.assertIn(panel["fieldConfig"]["defaults"]["unit"], known, panel["title"])
                self.assertTrue(panel["description"], panel["title"])
                names = [query["refId"] for query in panel["targets"]]
                self.assertEqual(len(names), len(set(names)), panel["title"])


class Prometheus(unittest.TestCase):
    def test_parses_every_query(self):
        queries = [query.expr.replace("$job", "troupe")
                   for board in BOARDS for panel in board.panels() for query in panel.queries]
        self.assertGreater(len(queries), 50)
        rules = {"groups": [{"name": "queries", "rules": [
            {"record": f"query_{i}", "expr": expr} for i, expr in enumerate(queries)]}]}
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            json.dump(rules, file)
            file.flush()
            result = subprocess.run(["promtool", "check", "rules", file.name], text=True,
                                    capture_output=True, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_accepts_the_configuration_of_containers(self):
        folder = os.path.join(DEPLOY, "prometheus")
        result = subprocess.run(["promtool", "check", "config", "prometheus.yml"], cwd=folder,
                                text=True, capture_output=True, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[1:]])
