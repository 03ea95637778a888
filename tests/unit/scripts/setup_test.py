"""deploy/setup and the first steps of deploy/up, in a copy of deploy/ with tools that pretend.

apt-get, dpkg-query, sudo and the rest are scripts: a package is there if FAKE_HAS names it, and
apt-get and ninja go on until they are stopped if FAKE_SLOW names them.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
TIMEOUT = 60
TOOLS = {
    "dpkg-query": 'for n; do :; done; case " $FAKE_HAS " in *" $n "*|*" all "*) '
                  'printf installed;; *) exit 1;; esac',
    "dpkg": "exit 0",
    "id": 'echo "${FAKE_UID:-0}"',
    "apt-get": 'echo "apt-get $*" >> "$FAKE_LOG"; [ "$FAKE_SLOW" != apt-get ] || '
               '[ "$1" = update ] || { sleep 1000 & sleep 1000; }',
    "ninja": 'echo ninja >> "$FAKE_LOG"; [ "$FAKE_SLOW" != ninja ] || { sleep 1000 & wait; }',
    "cmake": "exit 0",
    "sudo": '[ "$1" != -n ] || shift; [ -n "$FAKE_SUDO" ] || exit 1; '
            '[ "$1" = true ] || echo "sudo $1" >> "$FAKE_LOG"; FAKE_IS_ROOT=1 exec "$@"',
}
# The rest of PATH.
REAL_TOOLS = ("basename", "bash", "chmod", "date", "dirname", "grep", "mkdir", "rm",
              "sha256sum", "sleep", "tail", "true")
POLICY = "/usr/sbin/policy-rc.d"


def processes_of(folder):
    """Command lines of the processes whose environment names `folder`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ, \
                    open(f"/proc/{pid}/cmdline", "rb") as cmdline:
                if folder.encode() in environ.read() and int(pid) != os.getpid():
                    found.append(cmdline.read().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


class ScriptsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="troupe_setup_")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.log = os.path.join(self.folder, "log")
        self.bin = os.path.join(self.folder, "bin")
        shutil.copytree(os.path.join(ROOT, "deploy"), os.path.join(self.folder, "deploy"))
        os.makedirs(os.path.join(self.folder, "build", "venv"))
        os.mkdir(self.bin)
        for name, script in TOOLS.items():
            self.fake(name, script)
        for name in REAL_TOOLS:
            os.symlink(shutil.which(name), os.path.join(self.bin, name))
        self.keep_off_this_machine()
        with open(os.path.join(ROOT, "deploy", "requirements.txt"), encoding="utf-8") as file:
            stamp = subprocess.run(["sha256sum"], stdin=file, capture_output=True, text=True,
                                   check=True).stdout
        self.write("build/venv/stamp", stamp)  # the virtual environment is up to date

    def keep_off_this_machine(self):
        with open(os.path.join(self.folder, "deploy", "setup"), encoding="utf-8") as file:
            text = file.read()
        self.assertIn(POLICY, text)
        self.policy = os.path.join(self.folder, "policy-rc.d")
        self.write("deploy/setup", text.replace(POLICY, self.policy))

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def fake(self, name, script):
        os.chmod(self.write(f"bin/{name}", f"#!/bin/sh\n{script}\n"), 0o755)

    def start(self, script, *args, **environment):
        process = subprocess.Popen(
            [os.path.join(self.folder, "deploy", script), *args], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={"PATH": self.bin, "FAKE_LOG": self.log, "HOME": self.folder, **environment})
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def run_script(self, *args, **environment):
        process = self.start(*args, **environment)
        output, _ = process.communicate(timeout=TIMEOUT)
        return process.returncode, output

    def called(self):
        try:
            with open(self.log, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def wait_for(self, condition, what):
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"waited in vain for {what}")
            time.sleep(0.02)

    def await_call(self, text):
        self.wait_for(lambda: text in self.called(), text)


class Setup(ScriptsTest):
    def test_does_nothing_when_all_is_there(self):
        self.assertEqual(self.run_script("setup", FAKE_HAS="all", FAKE_UID="1000"), (0, ""))
        self.assertEqual(self.called(), "")

    def test_root_installs_what_is_missing(self):
        code, output = self.run_script("setup", "run")
        self.assertEqual(code, 0, output)
        self.assertIn("apt-get install -y --no-install-recommends openssl prometheus\n", self.called())
        self.assertFalse(os.path.exists(self.policy))

    def test_a_user_with_sudo_installs_what_is_missing(self):
        code, output = self.run_script("setup", "run", FAKE_UID="1000", FAKE_SUDO="1")
        self.assertEqual(code, 0, output)
        self.assertIn("sudo /bin/bash\n", self.called())
        self.assertIn("apt-get install -y --no-install-recommends openssl prometheus\n", self.called())

    def test_a_user_whom_sudo_refuses_is_told_the_command(self):
        code, output = self.run_script("setup", "run", FAKE_UID="1000")
        self.assertEqual(code, 1, output)
        self.assertIn("sudo does not let us", output)
        self.assertIn("\napt-get update && apt-get install -y --no-install-recommends openssl prometheus\n",
                      output)
        self.assertEqual(self.called(), "")

    def test_a_user_without_sudo_is_told_the_command(self):
        os.remove(os.path.join(self.bin, "sudo"))
        code, output = self.run_script("setup", "run", FAKE_UID="1000")
        self.assertEqual(code, 1, output)
        self.assertIn("there is no sudo", output)
        self.assertIn("\napt-get update && apt-get install -y --no-install-recommends openssl prometheus\n",
                      output)

    def test_a_failing_installation_is_quoted(self):
        self.fake("apt-get", 'echo "E: no such package"; exit 100')
        code, output = self.run_script("setup", "run")
        self.assertEqual(code, 1, output)
        self.assertIn("E: no such package", output)
        self.assertIn("cannot install the Debian packages (exit 100", output)


class Stops(ScriptsTest):
    def assert_stops(self, process, number, code):
        os.kill(process.pid, number)
        output, _ = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, code, output)
        self.assertEqual(processes_of(self.folder), [], output)
        self.assertFalse(os.path.exists(self.policy))
        self.assertIn("stopped", output)

    def test_setup_ends_apt(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number=number):
                process = self.start("setup", "run", FAKE_SLOW="apt-get")
                self.await_call("apt-get install")
                self.assertTrue(os.path.exists(self.policy))
                self.assert_stops(process, number, 143)
                os.remove(self.log)

    def test_sudo_ends_what_root_runs_for_a_user(self):
        # Stands for the kernel, which refuses a user's kill of root's processes.
        self.write("deny", 'kill() { [ -n "${FAKE_IS_ROOT:-}" ] && builtin kill "$@"; }\n')
        process = self.start("setup", "run", FAKE_SLOW="apt-get", FAKE_UID="1000", FAKE_SUDO="1",
                             BASH_ENV=f"{self.folder}/deny")
        self.await_call("apt-get install")
        self.assert_stops(process, signal.SIGTERM, 143)

    def test_up_exits_0_while_apt_runs(self):
        process = self.start("up", "--run_dir", f"{self.folder}/run", FAKE_SLOW="apt-get")
        self.await_call("apt-get install")
        self.assert_stops(process, signal.SIGINT, 0)

    def test_up_exits_0_while_it_compiles(self):
        process = self.start("up", "--run_dir", f"{self.folder}/run", FAKE_HAS="all",
                             FAKE_SLOW="ninja")
        self.await_call("ninja")
        self.assert_stops(process, signal.SIGINT, 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[1:]])
