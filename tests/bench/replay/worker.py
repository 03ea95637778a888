"""A peer in a process of its own, asked over its standard streams: one line of JSON each way.

A peer's libraries live in their own virtual environment and take seconds to import, so a worker
stays alive over all rounds.  The parent uses Worker, the child calls answer().
"""
import json
import os
import subprocess
import sys
import tempfile


class Worker:
    """The parent's side.  Used as a context manager, it ends the process."""

    def __init__(self, python, script, *args):
        environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="",
                           OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", str(python), str(script), *map(str, args)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=environment)
        self.ready = self._read()  # what the child says first

    @property
    def pid(self):
        return self._process.pid

    def send(self, command, **arguments):
        self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self._process.stdin.flush()

    def receive(self):
        return self._read()

    def ask(self, command, **arguments):
        self.send(command, **arguments)
        return self._read()

    def close(self):
        self._process.kill()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"{self._process.args} ended with {code}:\n{self._log.read()[-2000:]}")
        return json.loads(line)


def answer(ready, commands):
    """The child's side: says `ready`, then answers with commands[name](**arguments) for ever."""
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        arguments = json.loads(line)
        print(json.dumps(commands[arguments.pop("command")](**arguments)), flush=True)
