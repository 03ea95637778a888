"""deploy/slurm/troupe.sbatch on a real Slurm of one node: Pendulum is trained through, and a job that
is stopped goes on when it is submitted again.

    slurm_test.py BUILD_DIR
"""

import json
import os
import pathlib
import sys
import tempfile
import time
import unittest

from slurm_cluster import SlurmCluster, missing

ROOT = pathlib.Path(__file__).resolve().parents[2]
SBATCH = ROOT / "deploy" / "slurm" / "troupe.sbatch"
BUILD_DIR = pathlib.Path(sys.argv.pop(1)).resolve()
PATIENCE_SECONDS = 600


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Slurm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        absent = missing()
        if absent or os.geteuid() != 0:
            raise unittest.SkipTest(f"needs root and {', '.join(absent) or 'no more'}: "
                                    "apt-get install slurm-wlm munge")
        folder = tempfile.TemporaryDirectory(prefix="troupe_slurm_")
        cls.addClassCleanup(folder.cleanup)
        cls.slurm = SlurmCluster(folder.name)
        cls.addClassCleanup(cls.slurm.stop)
        cls.slurm.start()

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="troupe_slurm_run_")
        self.addCleanup(folder.cleanup)
        self.run_dir = pathlib.Path(folder.name) / "run"
        self.output = pathlib.Path(folder.name) / "job.log"

    def submit(self, *options):
        done = self.slurm.run("sbatch", "--parsable", f"--output={self.output}", "--nodes=1",
                              "--export=ALL", SBATCH, f"--run_dir={self.run_dir}",
                              f"--build_dir={BUILD_DIR}", *options, cwd=ROOT)
        self.assertEqual(done.returncode, 0, done.stderr + self.slurm.log())
        return done.stdout.strip()

    def await_job(self, number):
        self.await_that(lambda: self.slurm.job(number)[0] in ("COMPLETED", "FAILED", "CANCELLED",
                                                              "TIMEOUT", "NODE_FAIL"))
        return self.slurm.job(number)

    def await_that(self, what):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not what():
            self.assertLess(time.monotonic(), deadline, self.logs())
            time.sleep(0.2)

    def logs(self):
        paths = [self.output, *sorted(self.run_dir.glob("logs/*.log"))]
        return "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in paths if path.exists())

    def pendulum(self, env_steps):
        return (f"--config={ROOT}/deploy/configs/sac_pendulum.txtpb", "--set=evaluator.episodes=20",
                f"--set=total_env_steps={env_steps}")

    def test_pendulum_is_trained_through(self):
        job = self.submit(*self.pendulum(8_000))
        self.assertEqual(self.await_job(job), ("COMPLETED", "0:0"), self.logs())
        last = json_lines(self.run_dir / "learner.jsonl")[-1]
        self.assertTrue(last["done"])
        self.assertGreaterEqual(last["env_steps"], 8_000)
        evaluation = json_lines(self.run_dir / "evaluator" / "evaluations.jsonl")[-1]
        self.assertEqual(evaluation["episodes"], 20)
        self.assertGreaterEqual(evaluation["return_mean"], -200)
        actors = [json.loads(path.read_text())
                  for path in (self.run_dir / "actors").glob("actor-*.json")]
        self.assertEqual(len(actors), 2)

    def test_a_job_that_is_stopped_goes_on_when_it_is_submitted_again(self):
        learner = self.run_dir / "learner.jsonl"
        job = self.submit(*self.pendulum(2_000_000), "--shards=1", "--set=learner.log_interval_updates=100")
        self.await_that(lambda: any(line["updates"] >= 200 for line in json_lines(learner)))
        self.slurm.run("scancel", "--signal=TERM", "--batch", job)
        self.assertEqual(self.await_job(job), ("COMPLETED", "0:0"), self.logs())
        before = json_lines(learner)[-1]
        self.assertIn("goes on", self.output.read_text())
        self.assertEqual(len(list((self.run_dir / "checkpoints").glob("[0-9]*"))), 1)
        job = self.submit(*self.pendulum(before["env_steps"] + 500), "--shards=1")
        self.assertEqual(self.await_job(job), ("COMPLETED", "0:0"), self.logs())
        after = json_lines(learner)[-1]
        self.assertTrue(after["done"])
        self.assertGreater(after["policy_version"] >> 40, before["policy_version"] >> 40)
        self.assertGreater(after["updates"], before["updates"])

    def test_wrong_use_fails_the_job(self):
        job = self.submit("--config=/none.txtpb")
        self.assertEqual(self.await_job(job)[0], "FAILED")
        self.assertIn("/none.txtpb", self.logs())


if __name__ == "__main__":
    unittest.main()
