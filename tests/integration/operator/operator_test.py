"""The operator's command against a real cluster with mutual TLS: each subcommand, and what wrong use
says.

    operator_test.py BIN_DIR
"""

import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(sys.argv.pop(1))
CONFIG = ROOT / "deploy" / "configs" / "sac_pendulum.txtpb"
PATIENCE_SECONDS = 120
COLUMNS = 100


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          check=False, timeout=PATIENCE_SECONDS)


def await_that(what, why):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain: {why()}")
        time.sleep(0.05)


class Cluster:
    """Two shards, and by and by their clients; all with certificates."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.certs = self.folder / "certs"
        made = run(ROOT / "deploy" / "certs", self.certs)
        if made.returncode != 0:
            raise RuntimeError(made.stderr)
        self.children = {}
        self.ports = {}
        for number in range(2):
            self.start_shard(number, 0)

    def start_shard(self, number, port):
        name = f"shard-{number}"
        port_file = self.folder / f"{name}.port"
        port_file.unlink(missing_ok=True)
        self.start(name, "replay_server", "troupe-replay-server", f"--listen=127.0.0.1:{port}",
                   f"--data_dir={self.folder / name}", f"--port_file={port_file}",
                   "--set=shards=localhost:1,localhost:2",
                   f"--set=replay_server.backup_dir={self.folder / 'backups'}")
        (self.folder / "backups").mkdir(exist_ok=True)
        await_that(port_file.exists, lambda: self.log(name))
        self.ports[number] = int(port_file.read_text())

    def start_clients(self):
        self.start("learner", "learner", "troupe-learner", f"--run_dir={self.folder / 'run'}",
                   self.shards(), "--set=learner.checkpoint_interval_updates=200")
        self.start("evaluator", "actor", "troupe-actor", "--evaluate", self.shards(),
                   f"--output_dir={self.folder / 'run'}")
        self.start("actor", "actor", "troupe-actor", self.shards())

    def start(self, name, role, program, *flags):
        with open(self.folder / f"{name}.log", "a", encoding="utf-8") as log:
            self.children[name] = subprocess.Popen(
                [BIN / program, f"--config={CONFIG}", "--set=total_env_steps=100000000",
                 "--set=learner.sac.random_steps=300", f"--tls_dir={self.certs / role}", *flags],
                stderr=log)

    def shards(self):
        return f"--set=shards={','.join(f'localhost:{port}' for port in self.ports.values())}"

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()[-2000:]

    def stop(self):
        for child in self.children.values():
            child.kill()
        for child in self.children.values():
            child.wait()

    def troupe(self, command, *flags, role="operator"):
        return run(BIN / "troupe", command, f"--config={CONFIG}", self.shards(),
                   f"--tls_dir={self.certs / role}", *flags)

    def status(self):
        done = self.troupe("status", "--json", "--interval=300ms")
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        return json.loads(done.stdout)


def setUpModule():
    folder = tempfile.TemporaryDirectory(prefix="troupe_operator_")
    unittest.addModuleCleanup(folder.cleanup)
    cluster = WithCluster.cluster = Cluster(folder.name)
    unittest.addModuleCleanup(cluster.stop)
    cluster.start_clients()
    checkpoints = cluster.folder / "run" / "checkpoints"
    await_that(lambda: list(checkpoints.glob("[0-9]*")), lambda: cluster.log("learner"))


class WithCluster(unittest.TestCase):
    """Tests that share one cluster, which trains; each leaves it as it was."""

    cluster = None

    def expect(self, done, code, *words):
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        for word in words:
            self.assertIn(word, done.stdout + done.stderr)


class Status(WithCluster):
    def test_status_says_who_is_connected_and_what_they_do(self):
        def kinds():
            return sorted(one["kind"] for one in self.cluster.status()["connected"])
        await_that(lambda: kinds() == ["actor", "evaluator", "learner"], kinds)
        await_that(lambda: self.cluster.status()["sum"]["env_steps_per_second"] > 0,
                   self.cluster.status)
        status = self.cluster.status()
        self.assertEqual(status["run"], "sac_pendulum")
        self.assertGreater(status["snapshot_version"], 1 << 40)
        self.assertEqual(status["sum"]["rows"],
                         sum(shard["tables"][0]["rows"] for shard in status["shards"]))
        who = {one["kind"]: one for one in status["connected"]}
        self.assertEqual({kind: one["role"] for kind, one in who.items()},
                         {"actor": "actor", "learner": "learner", "evaluator": "actor"})
        for kind, program in (("actor", "actor"), ("learner", "learner"), ("evaluator", "actor")):
            self.assertIn(f"troupe-{program}@", who[kind]["client"])
            self.assertIn(f"/{self.cluster.children[kind].pid}", who[kind]["client"])
        self.assertEqual(who["learner"]["shards"], [0, 1])
        # Of several calls on one connection none counts for another.
        drawn = status["sum"]["windows_sampled_per_second"]
        self.assertLess(who["learner"]["windows_per_second"], 2 * drawn + 10_000)

    def test_the_table_fits_100_columns_and_has_the_limiter_in_words(self):
        done = self.cluster.troupe("status", "--interval=300ms")
        self.expect(done, 0, "run sac_pendulum: 2 of 2 shards answer", "sum", "serving",
                    "CONNECTED", "troupe-learner@")
        self.assertRegex(done.stdout, r"replay: (the rate limiter|writers wait|samplers wait)")
        for line in done.stdout.splitlines():
            self.assertLessEqual(len(line), COLUMNS, line)

    def test_a_shard_that_does_not_answer_is_named_and_the_other_shown(self):
        done = run(BIN / "troupe", "status", f"--config={CONFIG}", "--interval=100ms",
                   f"--set=shards=localhost:{self.cluster.ports[0]},localhost:1",
                   f"--tls_dir={self.cluster.certs / 'operator'}")
        self.expect(done, 1, "1 of 2 shards answer", "NO ANSWER", "no status of localhost:1")

    def test_nobody_answers(self):
        done = run(BIN / "troupe", "status", f"--config={CONFIG}", "--set=shards=localhost:1",
                   f"--tls_dir={self.cluster.certs / 'operator'}")
        self.expect(done, 1, "no status of localhost:1")
        self.assertEqual(done.stdout, "")

    def test_without_a_certificate_nobody_answers(self):
        done = run(BIN / "troupe", "status", f"--config={CONFIG}", self.cluster.shards())
        self.expect(done, 1, f"no status of localhost:{self.cluster.ports[0]}")


class Roles(WithCluster):
    def test_each_role_may_do_what_is_promised(self):
        for role, command, flags in (("actor", "status", ()), ("learner", "backup", ()),
                                     ("learner", "drain", ("--shard=0",)),
                                     ("actor", "drain", ("--shard=0", "--undo"))):
            method = {"status": "Describe", "backup": "Backup", "drain": "Drain"}[command]
            self.expect(self.cluster.troupe(command, *flags, role=role), 1,
                        f"role '{role}' may not call {method}")
        self.expect(self.cluster.troupe("status", "--interval=50ms", role="learner"), 0)

    def test_a_folder_without_certificates_is_named(self):
        done = run(BIN / "troupe", "status", "--set=shards=localhost:1", "--tls_dir=/none")
        self.expect(done, 1, "/none/ca.pem")


class Backup(WithCluster):
    def test_every_shard_is_copied_and_can_be_restored(self):
        output = self.cluster.folder / "copies"
        done = self.cluster.troupe("backup", "--name=monday", f"--output={output}")
        self.expect(done, 0, f"{output}/shard-0: ", f"{output}/shard-1: ")
        restored = self.cluster.folder / "restored"
        done = run(BIN / "troupe-restore", "--from", output / "shard-0", "--from",
                   output / "shard-1", "--to", restored)
        self.expect(done, 0)
        self.assertTrue((restored / "replay.rows").exists())
        again = self.cluster.troupe("backup", f"--output={output}")
        self.expect(again, 1, f"{output} is there already")

    def test_without_an_output_they_stay_with_the_shards(self):
        self.expect(self.cluster.troupe("backup", "--name=tuesday"), 0, "backups/tuesday-0: ")
        self.assertTrue((self.cluster.folder / "backups" / "tuesday-1").is_dir())
        again = self.cluster.troupe("backup", "--name=tuesday")
        self.expect(again, 1, f"no backup of localhost:{self.cluster.ports[0]}", "tuesday-1")

    def test_a_name_that_is_none_is_refused(self):
        self.expect(self.cluster.troupe("backup", "--name=../up"), 1, "no backup of")


class Drain(WithCluster):
    def rows(self, shard):
        return self.cluster.status()["shards"][shard]["tables"][0]["rows"]

    def test_a_shard_is_drained_stopped_and_taken_back(self):
        done = self.cluster.troupe("drain", "--shard=0")
        self.expect(done, 0, "can be stopped without loss")
        status = self.cluster.status()["shards"][0]
        self.assertTrue(status["draining"])
        self.assertEqual(status["state"], "drained: can be stopped without loss")
        rows = self.rows(0)
        other = self.rows(1)
        await_that(lambda: self.rows(1) > other + 100, self.cluster.status)
        self.assertEqual(self.rows(0), rows)
        shard = self.cluster.children["shard-0"]
        shard.send_signal(signal.SIGTERM)
        self.assertEqual(shard.wait(timeout=PATIENCE_SECONDS), 0)
        self.cluster.start_shard(0, self.cluster.ports[0])
        await_that(lambda: not self.cluster.status()["shards"][0]["draining"], self.cluster.status)
        # With all its rows, and perhaps with those of a writer that has come back.
        self.assertGreaterEqual(self.rows(0), rows)

    def test_a_drain_of_all_shards_holds_the_actor_until_it_is_undone(self):
        for shard in (0, 1):
            self.expect(self.cluster.troupe("drain", f"--shard=localhost:{self.cluster.ports[shard]}"),
                        0)
        rows = self.rows(0) + self.rows(1)
        self.assertEqual(self.cluster.status()["sum"]["rows"], rows)
        for shard in (0, 1):
            self.expect(self.cluster.troupe("drain", f"--shard={shard}", "--undo"), 0,
                        "takes writers again")
        await_that(lambda: self.rows(0) + self.rows(1) > rows + 100, self.cluster.status)
        self.assertIsNone(self.cluster.children["actor"].poll())

    def test_a_shard_that_is_none_is_wrong_use(self):
        self.expect(self.cluster.troupe("drain", "--shard=7"), 2, "--shard '7'", "0 to 1")
        self.expect(self.cluster.troupe("drain"), 2, "--shard is not set")


class Evaluate(WithCluster):
    def test_the_newest_policy_is_evaluated(self):
        done = self.cluster.troupe("evaluate", "--set=evaluator.episodes=3")
        self.expect(done, 0, "over 3 episodes of Pendulum-v1", "of run 'sac_pendulum'")
        self.assertRegex(done.stdout, r"^return -\d+\.\d\d \+- \d+\.\d\d over")

    def test_a_checkpoint_is_evaluated_without_a_shard(self):
        run_dir = self.cluster.folder / "run"
        newest = max((run_dir / "checkpoints").glob("[0-9]*"))
        # The learner removes old ones.
        kept = self.cluster.folder / "kept" / "checkpoints" / newest.name
        kept.parent.mkdir(parents=True)
        subprocess.check_call(["cp", "-r", newest, kept])
        for folder in (kept, kept.parent, kept.parent.parent):
            done = run(BIN / "troupe", "evaluate", f"--config={CONFIG}", f"--checkpoint={folder}",
                       "--set=evaluator.episodes=2")
            self.expect(done, 0, "over 2 episodes of Pendulum-v1")
            updates = int(re.search(r"and (\d+) updates", done.stdout).group(1))
            self.assertTrue(0 < updates <= int(newest.name), done.stdout)

    def test_folders_without_a_checkpoint_are_named(self):
        for folder, why in ((self.cluster.folder / "none", "is no folder"),
                            (self.cluster.certs, "no checkpoint in")):
            done = run(BIN / "troupe", "evaluate", f"--config={CONFIG}", f"--checkpoint={folder}")
            self.expect(done, 1, str(folder), why)

    def test_a_policy_of_another_environment_is_refused(self):
        config = ROOT / "deploy" / "configs" / "sac_hopper.txtpb"
        done = run(BIN / "troupe", "evaluate", f"--config={config}",
                   f"--checkpoint={self.cluster.folder / 'run'}")
        self.expect(done, 1, "maps 3 observations")


class WrongUse(unittest.TestCase):
    def test_wrong_words_are_named(self):
        for words, what in (((), "which command?"), (("statsu",), "no command 'statsu'"),
                            (("status", "--jsn"), "--json"), (("status",), "no shards"),
                            (("status", "--set=shards=localhost:1", "--interval=0s"), "--interval")):
            done = run(BIN / "troupe", *words)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn(what, done.stderr)

    def test_help(self):
        self.assertEqual(run(BIN / "troupe", "--help").returncode, 0)
        self.assertIn("--interval", run(BIN / "troupe", "status", "--help").stdout)


if __name__ == "__main__":
    unittest.main()
