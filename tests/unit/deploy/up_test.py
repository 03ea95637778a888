"""deploy/up and its supervisor, over programs that only pretend (fake_program.py)."""

import json
import os
import signal
import subprocess
import sys
import unittest

from programs import TIMEOUT, ProgramTest, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
UP = os.path.join(ROOT, "deploy", "up")

SUMMARY_KEYS = {"env_steps", "updates", "wall_seconds", "env_steps_per_second",
                "updates_per_second", "eval_return_mean", "eval_return_std", "eval_episodes",
                "policy_version", "policy_lag_mean", "rows_appended", "rows_acked", "rows_lost",
                "rows_duplicated"}


def processes_of(folder):
    """pid -> command line of every process that names `folder`."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().decode().replace("\0", " ")
        except (OSError, UnicodeDecodeError):
            continue
        if folder in words and int(pid) != os.getpid():
            found[int(pid)] = words
    return found


class UpTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.run_dir = os.path.join(self.folder, "run")
        os.makedirs(os.path.join(self.folder, "bin"))
        for name in ("troupe-replay-server", "troupe-learner", "troupe-actor"):
            os.symlink(os.path.join(HERE, "fake_program.py"),
                       os.path.join(self.folder, "bin", name))
        self.config = os.path.join(self.folder, "c.txtpb")
        self.write_config('total_env_steps: 100 environment { id: "Pretend-v0" }')

    def write_config(self, text):
        with open(self.config, "w") as file:
            file.write(text)

    def start(self, *args, prometheus=False, **environment):
        command = [UP, "--no-build", "--build_dir", self.folder, "--config", self.config,
                   "--run_dir", self.run_dir, *([] if prometheus else ["--no-prometheus"]), *args]
        return self.spawn(command, **environment)

    def run_up(self, *args, **environment):
        process = self.start(*args, **environment)
        output, _ = process.communicate(timeout=TIMEOUT)
        return process.returncode, output

    def summary(self):
        with open(os.path.join(self.run_dir, "summary.json")) as file:
            return json.load(file)

    def start_and_wait(self, **environment):
        """A run that is under way: all of its processes have served their metrics port."""
        process = self.start(FAKE_HOLD="1", **environment)
        ports = os.path.join(self.run_dir, "ports")
        wait_for(lambda: os.path.isdir(ports) and len(os.listdir(ports)) == 6, "six processes")
        return process

    def child(self, name):
        """The pid of the process whose metrics port file is `name`."""
        flag = f"ports/{name} "
        return wait_for(lambda: [pid for pid, words in processes_of(self.run_dir).items()
                                 if flag in words], name)[0]

    def assert_nothing_left(self):
        wait_for(lambda: not processes_of(self.run_dir), "the end of all processes")


class WholeRun(UpTest):
    def test_ends_at_the_budget_with_everything_in_place(self):
        code, output = self.run_up()
        self.assertEqual(code, 0, output)
        self.assertEqual(processes_of(self.run_dir), {})
        summary = self.summary()
        self.assertEqual(set(summary), SUMMARY_KEYS)
        for key, value in summary.items():
            self.assertIsInstance(value, (int, float), key)
        self.assertEqual(summary["env_steps"], 100)
        self.assertEqual(summary["updates"], 50)
        self.assertEqual(summary["eval_return_mean"], 5.5)
        self.assertEqual(summary["policy_lag_mean"], 3)
        self.assertEqual((summary["rows_appended"], summary["rows_acked"]), (120, 120))
        self.assertEqual((summary["rows_lost"], summary["rows_duplicated"]), (0, 0))
        for name in ("config.txtpb", "logs/learner.log", "logs/shard-1.log"):
            self.assertTrue(os.path.exists(os.path.join(self.run_dir, name)), name)

    def test_resumes_and_says_what_changed(self):
        self.run_up()
        os.remove(os.path.join(self.run_dir, "final"))
        code, output = self.run_up("--set", "total_env_steps=200")
        self.assertEqual(code, 0, output)
        self.assertIn("changed since the last start: +total_env_steps: 200", output)
        self.assertEqual(self.summary()["env_steps"], 200)
        self.assertEqual(self.summary()["rows_acked"], 240)

    def test_shards_and_actors_are_as_many_as_asked_for(self):
        code, output = self.run_up("--shards=3", "--actors", "1")
        self.assertEqual(code, 0, output)
        logs = os.listdir(os.path.join(self.run_dir, "logs"))
        self.assertEqual(sorted(logs), ["actor-0.log", "evaluator.log", "learner.log",
                                        "shard-0.log", "shard-1.log", "shard-2.log"])


# Finds its port taken the first time, as when two runs start at once.
UNLUCKY_PROMETHEUS = """#!/usr/bin/python3
import os, signal, socket, sys
address = [flag for flag in sys.argv if flag.startswith("--web.listen-address=")][0]
port = int(address.rpartition(":")[2])
if not os.path.exists("{folder}/taken"):
    holder = socket.create_server(("127.0.0.1", port))
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.alarm(60)
        signal.pause()
    with open("{folder}/taken", "w") as file:
        file.write(f"{{child}} {{port}}")
    sys.exit(1)
with open("{folder}/started", "w") as file:
    file.write(str(port))
signal.sigwait([signal.SIGTERM])
"""


class PrometheusPort(UpTest):
    def test_that_somebody_else_has_taken_is_left_to_them(self):
        path = os.path.join(self.folder, "path")
        os.makedirs(path)
        with open(os.path.join(path, "prometheus"), "w") as file:
            file.write(UNLUCKY_PROMETHEUS.format(folder=self.folder))
        os.chmod(os.path.join(path, "prometheus"), 0o755)
        process = self.start(FAKE_HOLD="1", PATH=f"{path}:{os.environ['PATH']}", prometheus=True)
        started = os.path.join(self.folder, "started")
        wait_for(lambda: os.path.exists(started) and os.path.getsize(started), "another start")
        with open(os.path.join(self.folder, "taken")) as file:
            holder, taken = file.read().split()
        os.kill(int(holder), signal.SIGKILL)
        with open(started) as file:
            port = file.read()
        self.assertNotEqual(port, taken)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 0, output)
        self.assertIn(f"boards at http://127.0.0.1:{taken}/", output)
        self.assertIn(f"boards at http://127.0.0.1:{port}/", output)


class Deaths(UpTest):
    def test_every_process_that_is_killed_comes_back(self):
        process = self.start_and_wait()
        for name in ("shard-0", "learner", "actor-1", "evaluator"):
            old = self.child(name)
            os.kill(old, signal.SIGKILL)
            wait_for(lambda: self.child(name) != old, f"another {name}")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 0, output)
        self.assertIn("learner was killed by SIGKILL, starting it again", output)
        self.assert_nothing_left()

    def test_nothing_is_left_when_the_supervisor_is_killed(self):
        self.start_and_wait()
        supervisor = [pid for pid, words in processes_of(self.run_dir).items()
                      if "deploy/supervisor" in words][0]
        os.kill(supervisor, signal.SIGKILL)
        self.assert_nothing_left()

    def test_nothing_is_left_when_deploy_up_is_killed(self):
        self.start_and_wait().kill()
        self.assert_nothing_left()

    def test_a_process_that_refuses_its_flags_ends_the_run_and_is_quoted(self):
        code, output = self.run_up(FAKE_FAIL="troupe-learner")
        self.assertEqual(code, 1, output)
        self.assertIn("learner ended with exit code 2", output)
        self.assertIn("the sky has fallen", output)
        self.assert_nothing_left()


class Stops(UpTest):
    def test_ctrl_c_exits_0_and_leaves_a_summary(self):
        process = self.start_and_wait()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 0, output)
        self.assertEqual(set(self.summary()), SUMMARY_KEYS)
        self.assert_nothing_left()

    def test_ctrl_c_at_any_moment_exits_0_and_leaves_nothing(self):
        for milliseconds in (0, 5, 20, 40, 60, 100, 200, 400, 800):
            with self.subTest(milliseconds=milliseconds):
                process = self.start(FAKE_HOLD="1")
                try:  # the moment is the point of this test; no outcome depends on it
                    process.wait(timeout=milliseconds / 1000)
                except subprocess.TimeoutExpired:
                    pass
                process.send_signal(signal.SIGINT)
                output, _ = process.communicate(timeout=TIMEOUT)
                # Before bash has installed its trap, the signal itself ends it.
                self.assertIn(process.returncode, (0, -signal.SIGINT), output)
                self.assertNotIn("Traceback", output)
                self.assert_nothing_left()


class WrongUse(UpTest):
    def test_a_clear_message_and_the_right_code(self):
        full = "/dev/full"
        table = [
            (["--actrs=3"], 2, "unknown flag '--actrs'"),
            (["stray"], 2, "unknown flag 'stray'"),
            (["--actors", "many"], 2, "--actors many"),
            (["--set"], 2, "--set needs a value"),
            (["--config", "/nowhere.txtpb"], 2, "/nowhere.txtpb"),
            (["--run_dir", "/proc/nowhere"], 1, "/proc/nowhere"),
            (["--run_dir", full], 1, full),
            (["--build_dir", "/nowhere"], 1, "/nowhere/bin/troupe-replay-server"),
        ]
        for args, code, name in table:
            with self.subTest(args=args):
                result, output = self.run_up(*args)
                self.assertEqual(result, code, output)
                self.assertIn(name, output)
                self.assertNotIn("Traceback", output)

    def test_a_wrong_configuration_is_quoted(self):
        self.write_config("wrong")
        code, output = self.run_up()
        self.assertEqual(code, 2, output)
        self.assertIn("wrong configuration", output)

    def test_a_disk_without_room_for_the_rows_is_named(self):
        code, output = self.run_up(FAKE_ROW_LOG_BYTES=str(1 << 60))
        self.assertEqual(code, 1, output)
        self.assertIn(f"--run_dir {self.run_dir}: only", output)
        self.assertIn(f"{1 << 40} MiB for the rows of each of 2 shards", output)
        self.assertFalse(os.listdir(os.path.join(self.run_dir, "ports")))

    def test_rows_that_are_there_need_no_room(self):
        for shard in ("shard-0", "shard-1"):
            os.makedirs(os.path.join(self.run_dir, shard))
            open(os.path.join(self.run_dir, shard, "replay.rows"), "w").close()
        code, output = self.run_up(FAKE_ROW_LOG_BYTES=str(1 << 60))
        self.assertEqual(code, 0, output)

    def test_a_run_directory_in_use_is_named(self):
        self.start_and_wait()
        code, output = self.run_up()
        self.assertEqual(code, 2, output)
        self.assertIn("in use by another deploy/up", output)

    def test_a_run_directory_of_another_environment_is_refused(self):
        self.run_up()
        code, output = self.run_up("--set", "environment.id=Other-v0")
        self.assertEqual(code, 2, output)
        self.assertIn("'Pretend-v0'", output)
        self.assertIn("'Other-v0'", output)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[1:]])
