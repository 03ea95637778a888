"""The Python package starts a run; its tutorial works; it is installed as a user would.

    run_test.py BUILD_DIR
"""

import contextlib
import email
import io
import os
import pathlib
import re
import subprocess
import sys

import numpy as np

from cluster import BUILD_DIR, ROOT, TIMEOUT, ClusterTest, main, troupe

from troupe import __main__ as command  # noqa: E402 (cluster knows where it is)

RUN_SECONDS = 300
TINY = ["total_env_steps=1500", "actor.num_envs=2", "evaluator.episodes=2",
        "evaluator.interval_env_steps=500", "learner.sac.random_steps=200",
        "learner.sac.batch_size=32", "learner.sac.actor.hidden_sizes=16",
        "learner.sac.critic.hidden_sizes=16", "learner.log_interval_updates=50",
        "tables.capacity_rows=100000"]


class Run(ClusterTest):
    def test_a_run_is_started_watched_used_and_summed_up(self):
        with troupe.Run("sac_pendulum", self.folder(), sets=TINY, build_dir=BUILD_DIR) as run:
            client = run.client()
            policy = self.enter(client.subscribe()).wait_newer(0, TIMEOUT).policy()
            exported = self.folder() / "policy.onnx"
            shards = ",".join(shard.name for shard in client.shards)
            with contextlib.redirect_stdout(io.StringIO()) as said:
                self.assertEqual(command.main(["export", "--shards", shards, "--run", client.run,
                                               "-o", str(exported)]), 0)
            self.assertRegex(said.getvalue(), r"policy of \w+ after [\d,]+ steps")
            self.assertGreater(exported.stat().st_size, 1000)
            layout = client.table().layout
            observations = np.zeros((5, *layout["observation"].shape), np.float32)
            self.assertEqual(policy.mode(observations).action.shape, (5, 1))
            windows = self.enter(client.follow()).windows(2, timeout=TIMEOUT)
            # The angle's cosine and sine: rows that C++ has packed are read at the right places.
            cosine, sine, _ = np.moveaxis(next(windows)["observation"], -1, 0)
            np.testing.assert_allclose(cosine**2 + sine**2, 1, rtol=1e-5)
            run.wait(RUN_SECONDS)
        self.assertTrue(run.progress()["done"])
        self.assertGreaterEqual(run.summary()["env_steps"], 1500)
        self.assertEqual(run.summary()["rows_lost"], 0)
        self.assertGreaterEqual(len(run.evaluations()), 2)

    def test_a_run_is_stopped_in_order_and_resumed(self):
        folder = self.folder()
        sets = [*TINY, "total_env_steps=100000000"]
        for _ in range(2):
            with troupe.Run("sac_pendulum", folder, sets=sets, build_dir=BUILD_DIR) as run:
                client = run.client()
                client.table(timeout=TIMEOUT)
                with client.follow() as follower:
                    next(follower.windows(2, timeout=TIMEOUT))
                with self.assertRaisesRegex(TimeoutError, "goes on"):
                    run.wait(0.01)
            self.assertFalse(run.running)
            self.assertGreater(run.summary()["env_steps"], 0)

    def test_what_is_wrong_is_said(self):
        with self.assertRaisesRegex(troupe.TroupeError, "no configuration 'sac_moon'; there are: .*"
                                                        "sac_pendulum"):
            troupe.Run("sac_moon", self.folder(), build_dir=BUILD_DIR)
        run = troupe.Run("sac_pendulum", self.folder(), sets=["seed=x"], build_dir=BUILD_DIR)
        with self.assertRaisesRegex(troupe.TroupeError, "ended with 2(.|\\n)*seed"):
            run.wait(TIMEOUT)


class Package(ClusterTest):
    def test_pip_installs_it_with_three_dependencies(self):
        target = self.folder()
        source = self.folder() / "repository"
        for part in ("actor/python", "proto", "CMakeLists.txt"):
            (source / part).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-r", ROOT / part, source / part], check=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation",
                        "--quiet", "--disable-pip-version-check", "--root-user-action=ignore",
                        "--target", target, source / "actor" / "python"], check=True)
        said = subprocess.run(
            [sys.executable, "-c", "import troupe; from troupe.proto import replay_pb2; "
             "print(troupe.__file__)"], cwd="/", check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(target)})
        self.assertEqual(pathlib.Path(said.stdout.strip()).parent, target / "troupe")
        self.assertTrue((target / "troupe" / "py.typed").exists())
        metadata = email.message_from_string(
            next(target.glob("troupe-*/METADATA")).read_text(encoding="utf-8"))
        needed = {re.split("[^a-z0-9]", word)[0] for word in metadata.get_all("Requires-Dist")
                  if "extra ==" not in word}
        self.assertEqual(needed, {"grpcio", "numpy", "protobuf"})
        self.assertIn(f"VERSION {metadata['Version']} ", (ROOT / "CMakeLists.txt").read_text())

    def test_the_example_in_the_readme_works_as_it_is_written(self):
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        example = re.search(r"## From Python.*?```python\n(.*?)```", text, re.DOTALL)[1]
        self.assertIn('"/tmp/demo"', example)
        script = f"{example.replace('/tmp/demo', str(self.folder()))}shard.close()\n"
        os.environ["TROUPE_ROOT"] = str(ROOT)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(script, {})
        self.assertRegex(said.getvalue(), r"^\(256, 2, 3\) -[0-9.]+ False\n$")

    def test_the_tutorial_works_as_it_is_written(self):
        done = subprocess.run(
            [sys.executable, ROOT / "actor" / "python" / "examples" / "tutorial.py"],
            cwd=self.folder(), check=False, capture_output=True, text=True, timeout=RUN_SECONDS,
            env={**os.environ, "PYTHONPATH": str(BUILD_DIR / "python"),
                 "TROUPE_ROOT": str(ROOT), "TROUPE_BUILD_DIR": str(BUILD_DIR)})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("everything that was appended came back", done.stdout)


if __name__ == "__main__":
    main()
