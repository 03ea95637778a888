"""README's environment of one's own is an environment, and the actor steps it as README says.

    readme_world_test.py ACTOR
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]


class ReadmeWorld(unittest.TestCase):
    def test_its_episode_ends_at_the_end_of_the_corridor(self):
        section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Your own env")[1]
        code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "corridor.py").write_text(code, encoding="utf-8")
            actions = pathlib.Path(folder) / "actions"
            actions.write_text("0\n" + "1\n" * 25, encoding="utf-8")
            out = subprocess.run(
                [ACTOR, f"--probe={actions}", "--metrics_port=-1",
                 "--set=environment.gymnasium.id=Corridor-v0",
                 "--set=environment.gymnasium.module=corridor"],
                capture_output=True, text=True, check=True, cwd=folder,
                env=dict(os.environ, TROUPE_PYTHON=sys.executable)).stdout
        lines = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(len(lines), 1 + 1 + 20)
        self.assertEqual(lines[-1], {"observation": [20.0], "reward": -1.0, "terminated": True,
                                     "truncated": False})
        self.assertEqual(lines[1]["observation"], [0.0])


if __name__ == "__main__":
    ACTOR = sys.argv.pop(1)
    unittest.main()
