"""Every case of replay_bench.py that needs no peer, once and short, on real shards.

    replay_bench_test.py BIN_DIR

Rates must be there, not high; wrong windows fail a case by themselves.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

BENCH = pathlib.Path(__file__).resolve().parent / "replay_bench.py"
BIN_DIR = pathlib.Path(sys.argv.pop(1)) if __name__ == "__main__" else None
CASES = ("append", "sample_uniform", "sample_prioritized", "sample_updates", "restart")


def lines_of(*cases):
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            [sys.executable, str(BENCH), f"--bin_dir={BIN_DIR}", f"--out={out}", "--quick",
             f"--only={','.join(cases)}"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


class ReplayBench(unittest.TestCase):
    def test_every_case_says_what_it_measured(self):
        lines = lines_of(*CASES)
        names = {line["name"] for line in lines}
        self.assertLessEqual({"replay.append", "replay.append_cpu", "replay.sample_uniform",
                              "replay.sample_prioritized", "replay.restart"}, names)
        for line in lines:
            if not line["name"].endswith("_cpu"):  # a tick of CPU time may be too long
                self.assertGreater(line["value"], 0, line)
            self.assertNotIn("peer", line)

    def test_a_frame_in_stacks_of_four_is_stored_once(self):
        lines = {line["name"]: line for line in lines_of("pixels")}
        self.assertGreater(lines["replay.append_bytes"]["value"], 0)
        self.assertGreater(lines["replay.sample_bytes"]["value"], 0)
        stored = lines["replay.memory"]
        self.assertGreaterEqual(stored["value"], stored["frame_bytes"])
        self.assertLessEqual(stored["value"], stored["allowed"])


if __name__ == "__main__":
    unittest.main()
