"""deploy/up with the real programs: a tiny run from start to end, resumed, killed, refused."""

import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UP = os.path.join(ROOT, "deploy", "up")
CONFIG = os.path.join(ROOT, "deploy", "configs", "sac_pendulum.txtpb")
TIMEOUT = 300
TINY = ["total_env_steps=600", "actor.num_envs=2", "evaluator.episodes=2",
        "evaluator.interval_env_steps=200", "learner.sac.random_steps=200",
        "learner.sac.batch_size=32", "learner.sac.actor.hidden_sizes=16",
        "learner.sac.critic.hidden_sizes=16", "learner.log_interval_updates=50",
        "tables.capacity_rows=100000"]


def processes_of(folder):
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                if folder.encode() in file.read():
                    found.append(path)
        except OSError:
            continue
    return found


def wait_for(condition, what):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.05)


class Train(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="troupe_train_")
        self.addCleanup(folder.cleanup)
        self.run_dir = os.path.join(folder.name, "run")

    def start(self, *args, sets=()):
        command = [UP, "--no-build", "--build_dir", BUILD_DIR, "--config", CONFIG,
                   "--run_dir", self.run_dir, *args]
        command += [f"--set={word}" for word in [*TINY, *sets]]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def run_up(self, *args, sets=()):
        process = self.start(*args, sets=sets)
        output, _ = process.communicate(timeout=TIMEOUT)
        return process.returncode, output

    def file(self, *names):
        return os.path.join(self.run_dir, *names)

    def summary(self):
        with open(self.file("summary.json")) as file:
            return json.load(file)

    def test_a_run_leaves_everything_behind_and_is_resumed(self):
        code, output = self.run_up()
        self.assertEqual(code, 0, output)
        self.assertEqual(processes_of(self.run_dir), [])
        first = self.summary()
        self.assertGreaterEqual(first["env_steps"], 600)
        self.assertGreater(first["updates"], 0)
        self.assertEqual(first["eval_episodes"], 2)
        self.assertEqual((first["rows_lost"], first["rows_duplicated"]), (0, 0))
        self.assertTrue(glob.glob(self.file("checkpoints", "*", "*.safetensors")))
        with open(self.file("learning_curve.png"), "rb") as file:
            self.assertEqual(file.read(8), b"\x89PNG\r\n\x1a\n")
        for folder in ("tensorboard", "evaluator/tensorboard"):
            events = EventAccumulator(self.file(folder))
            events.Reload()
            self.assertTrue(events.Tags()["scalars"], folder)

        code, output = self.run_up(sets=["total_env_steps=1200"])
        self.assertEqual(code, 0, output)
        second = self.summary()
        self.assertGreaterEqual(second["env_steps"], 1200)
        self.assertGreater(second["updates"], first["updates"])
        self.assertGreater(second["policy_version"], first["policy_version"])
        self.assertEqual((second["rows_lost"], second["rows_duplicated"]), (0, 0))

    def test_ctrl_c_stops_in_order_with_a_checkpoint(self):
        process = self.start(sets=["total_env_steps=1000000"])
        log = self.file("learner.jsonl")
        wait_for(lambda: os.path.exists(log) and os.path.getsize(log) > 0, "the first updates")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 0, output)
        self.assertEqual(processes_of(self.run_dir), [])
        self.assertTrue(glob.glob(self.file("checkpoints", "*", "*.safetensors")))
        self.assertGreater(self.summary()["env_steps"], 0)

    def test_wrong_use_is_named_and_leaves_nothing(self):
        table = [
            (["learner.sac.gama=1"], 2, "nearest is gamma"),
            (["learner.sac.gamma=7"], 2, "must be 0 to 1"),
            (["environment.id=Pendulun-v1"], 1, "Pendulum-v1"),
            (["environment.id=HalfCheetah-v5", "environment.xml_file=/nowhere.xml"], 1,
             "/nowhere.xml"),
        ]
        for sets, code, name in table:
            with self.subTest(sets=sets):
                result, output = self.run_up("--no-prometheus", sets=sets)
                self.assertEqual(result, code, output)
                self.assertIn(name, output)
                self.assertEqual(processes_of(self.run_dir), [])
                subprocess.run(["rm", "-rf", self.run_dir], check=True)


if __name__ == "__main__":
    BUILD_DIR = sys.argv.pop(1)
    unittest.main()
