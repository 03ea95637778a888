"""A Docker engine to test with, on a machine that may have none and can pull no image.

  engine.py

Exit code 1: none can be had here, or its containers cannot install Debian's packages, as images are
made of; why is on stderr."""

import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BASE_IMAGE = "debian:bookworm-slim"
START_SECONDS = 60
PULL_SECONDS = 60


class Failure(Exception):
    """A command did not do what it was asked for."""


def run(*command, timeout=120, check=True, env=None):
    """What the command prints on stdout; Failure holds what it prints on stderr."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=timeout, check=False, cwd=ROOT, env=env)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit {done.returncode}\n"
                      f"{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def answers():
    try:
        return bool(run("docker", "version", "--format={{.Server.Version}}", check=False).strip())
    except (OSError, subprocess.TimeoutExpired):
        return False


class Engine:
    """Installs Docker where it is missing, starts its daemon where none runs, and makes the base
    image where it is missing; leaves images behind, and no daemon of its own."""

    def __init__(self):
        self._daemon = None

    def __enter__(self):
        if not all(map(shutil.which, ("docker", "dockerd", "docker-compose", "debootstrap"))):
            run("deploy/setup", "--no_venv", "containers", timeout=600)
        if not answers():
            self._start_daemon()
        if not run("docker", "images", "-q", BASE_IMAGE).strip():
            self._get_base_image()
        return self

    def __exit__(self, *unused):
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(timeout=START_SECONDS)

    def _start_daemon(self):
        log_path = os.path.join(ROOT, "build", "dockerd.log")
        os.makedirs(os.path.dirname(log_path), exist_ok=True)
        with open(log_path, "wb") as log:
            self._daemon = subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                with open(log_path, encoding="utf-8", errors="replace") as log:
                    raise Failure(f"dockerd does not answer:\n{log.read()[-3000:]}")
            time.sleep(0.2)

    @staticmethod
    def _get_base_image():
        try:
            run("docker", "pull", "-q", BASE_IMAGE, timeout=PULL_SECONDS)
        except (Failure, subprocess.TimeoutExpired):
            run("deploy/base_image", BASE_IMAGE, timeout=600)


if __name__ == "__main__":
    try:
        with Engine():
            run("docker", "run", "--rm", BASE_IMAGE, "apt-get", "-q", "update", "--error-on=any")
    except (Failure, OSError, subprocess.TimeoutExpired) as failure:
        sys.exit(f"engine.py: {failure}")
