"""What tests share that start programs and wait for what they do."""

import os
import signal
import subprocess
import tempfile
import time
import unittest

TIMEOUT = 120  # seconds; for what takes a moment


def wait_for(condition, what):
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


class ProgramTest(unittest.TestCase):
    """Has a folder of its own; the programs that it starts are gone when it is over."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="troupe_test_")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def spawn(self, command, output=subprocess.PIPE, **environment):
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True,
                                   env={**os.environ, **environment})
        self.addCleanup(process.communicate)
        self.addCleanup(process.send_signal, signal.SIGKILL)
        return process
