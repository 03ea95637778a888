"""deploy/certs and the programs' --tls_dir: roles over a real shard, and what wrong use says."""

import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(sys.argv.pop(1))
PATIENCE_SECONDS = 60


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          check=False, timeout=PATIENCE_SECONDS)


class CertsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="troupe_certs_")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.certs = self.folder / "certs"
        made = run(ROOT / "deploy" / "certs", self.certs)
        self.assertEqual(made.returncode, 0, made.stderr)

    def start_shard(self):
        port_file = self.folder / "port"
        shard = subprocess.Popen(
            [BIN / "troupe-replay-server", f"--data_dir={self.folder / 'data'}",
             "--listen=0.0.0.0:0", f"--port_file={port_file}",
             "--metrics_port=0", f"--metrics_port_file={self.folder / 'metrics_port'}",
             f"--tls_dir={self.certs / 'replay_server'}"], stderr=subprocess.DEVNULL)
        self.addCleanup(shard.wait)
        self.addCleanup(shard.kill)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not port_file.exists():
            self.assertIsNone(shard.poll(), "the shard ended")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        return f"localhost:{port_file.read_text().strip()}"

    def ask(self, address, *flags):
        return run(BIN / "troupe-replay-server", f"--listen={address}", *flags)

    def test_roles_over_a_shard(self):
        address = self.start_shard()
        for role in ("actor", "learner", "operator", "replay_server"):
            health = self.ask(address, "--health", f"--tls_dir={self.certs / role}")
            self.assertEqual(health.returncode, 0, health.stderr)
        plaintext = self.ask(address, "--health")
        self.assertEqual(plaintext.returncode, 1, plaintext.stderr)
        refused = self.ask(address, "--backup=b", f"--tls_dir={self.certs / 'actor'}")
        self.assertEqual(refused.returncode, 1, refused.stderr)
        self.assertIn("role 'actor' may not call Backup", refused.stderr)
        itself = self.ask(address, "--backup=b", f"--tls_dir={self.certs / 'replay_server'}")
        self.assertIn("role 'replay_server' may not call Backup", itself.stderr)
        unset = self.ask(address, "--backup=b", f"--tls_dir={self.certs / 'operator'}")
        self.assertIn("backup_dir", unset.stderr)

    def test_certificates_are_renewed_by_the_same_authority(self):
        address = self.start_shard()
        before = (self.certs / "operator" / "cert.pem").read_bytes()
        self.assertEqual(run(ROOT / "deploy" / "certs", self.certs).returncode, 0)
        self.assertNotEqual((self.certs / "operator" / "cert.pem").read_bytes(), before)
        health = self.ask(address, "--health", f"--tls_dir={self.certs / 'operator'}")
        self.assertEqual(health.returncode, 0, health.stderr)

    def test_a_shard_says_when_its_certificate_runs_out(self):
        self.start_shard()
        url = f"http://127.0.0.1:{(self.folder / 'metrics_port').read_text().strip()}/metrics"

        def seconds_left():
            with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
                found = re.search(r"^troupe_certificate_expiry_timestamp_seconds (\S+)$",
                                  answer.read().decode(), re.MULTILINE)
            return float(found[1]) - time.time()
        day = 24 * 3600
        self.assertAlmostEqual(seconds_left(), 365 * day, delta=day)
        self.assertEqual(run(ROOT / "deploy" / "certs", self.certs, "--days", "3").returncode, 0)
        self.assertAlmostEqual(seconds_left(), 3 * day, delta=day)
        (self.certs / "replay_server" / "cert.pem").write_text("nonsense")
        self.assertLess(seconds_left(), 0)

    def test_keys_are_their_owners_alone(self):
        for key in self.certs.glob("*/key.pem"):
            self.assertEqual(key.stat().st_mode & 0o077, 0, key)

    def test_wrong_use(self):
        self.assertEqual(run(ROOT / "deploy" / "certs").returncode, 2)
        self.assertEqual(run(ROOT / "deploy" / "certs", self.certs, "--dayz", "1").returncode, 2)
        missing = self.ask("localhost:1", "--health", f"--tls_dir={self.folder / 'none'}")
        self.assertEqual(missing.returncode, 1)
        self.assertIn(f"{self.folder / 'none'}/ca.pem", missing.stderr)
        both = self.ask("localhost:1", "--health", "--insecure",
                        f"--tls_dir={self.certs / 'actor'}")
        self.assertEqual(both.returncode, 2)
        beyond = self.ask("10.0.0.1:7001", "--health")
        self.assertIn("--tls_dir", beyond.stderr)


if __name__ == "__main__":
    unittest.main()
