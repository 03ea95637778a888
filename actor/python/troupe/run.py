"""A training run on this machine, from Python."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from troupe.client import Client
from troupe.errors import TroupeError
from troupe.local import checkout

_STOP_SECONDS = 240.0
_POLL_SECONDS = 0.1


class Run:
    """deploy/up in a child process: shards, a learner, actors and an evaluator.

        with troupe.Run("sac_pendulum", "runs/mine", sets=["total_env_steps=20000"]) as run:
            run.wait()
            print(run.summary()["eval_return_mean"])

    `config` is a file, or the name of one in deploy/configs.  The same `run_dir` again resumes the
    run.  Leaving the context stops it as Ctrl-C would, with a checkpoint.
    """

    def __init__(self, config: str | os.PathLike, run_dir: str | os.PathLike, *,
                 sets: Sequence[str] = (), actors: int = 1, shards: int = 1,
                 prometheus: bool = False, build: bool = False,
                 build_dir: str | os.PathLike | None = None,
                 root: str | os.PathLike | None = None):
        """`sets`: "path=value" each, on top.  `build`: installs and builds what is missing."""
        root = pathlib.Path(root).resolve() if root else checkout()
        path = pathlib.Path(config)
        if not path.exists():
            path = root / "deploy" / "configs" / f"{config}.txtpb"
        if not path.exists():
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.txtpb")))
            raise TroupeError(f"no configuration '{config}'; there are: {known}")
        self.run_dir = pathlib.Path(run_dir).resolve()
        self.run_dir.mkdir(parents=True, exist_ok=True)
        command = [str(root / "deploy" / "up"), "--config", str(path), "--run_dir",
                   str(self.run_dir), "--actors", str(actors), "--shards", str(shards)]
        command += ["--no-prometheus"] * (not prometheus) + ["--no-build"] * (not build)
        command += ["--build_dir", str(build_dir)] if build_dir else []
        command += [f"--set={word}" for word in sets]
        self._log = self.run_dir / "up.log"
        with open(self._log, "ab") as log:
            self._log_begins = log.tell()
            self._process = subprocess.Popen(command, stdout=log, stderr=log,
                                             stdin=subprocess.DEVNULL, start_new_session=True)

    @property
    def running(self) -> bool:
        """Still?"""
        return self._process.poll() is None

    def log(self) -> str:
        """What deploy/up has printed since this start."""
        with open(self._log, "rb") as file:
            file.seek(self._log_begins)
            return file.read().decode(errors="replace")

    def wait(self, timeout: float | None = None) -> None:
        """Until the step budget is reached; TroupeError: the run failed, with its last words."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the run in {self.run_dir} goes on after {timeout} s") from None
        if code != 0:
            raise TroupeError(f"deploy/up ended with {code}: {self.log()[-2000:]}")

    def stop(self) -> None:
        """As Ctrl-C: all processes end in order, the learner with a checkpoint."""
        if not self.running:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise TroupeError(f"the run in {self.run_dir} did not stop in {_STOP_SECONDS:.0f} s "
                              "and was killed") from None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def client(self, timeout: float = 60.0) -> Client:
        """Of the run's shards, once they are known."""
        deadline = time.monotonic() + timeout
        while True:
            text = self._read("config.txtpb")
            ports = json.loads(self._read("state.json") or "{}").get("shard_ports", [])
            if text and ports:
                name = re.search(r'^run: "(.*)"', text, re.MULTILINE)
                return Client([f"127.0.0.1:{port}" for port in ports],
                              name[1] if name else "troupe")
            if not self.running or time.monotonic() > deadline:
                raise TroupeError(f"the run has no shards: {self.log()[-2000:]}")
            time.sleep(_POLL_SECONDS)

    def progress(self) -> dict[str, Any]:
        """The learner's last line of losses and counts; empty until it has written one."""
        lines = self._lines("learner.jsonl")
        return lines[-1] if lines else {}

    def evaluations(self) -> list[dict[str, Any]]:
        """Returns of deterministic episodes, by environment steps."""
        return self._lines("evaluator/evaluations.jsonl")

    def summary(self) -> dict[str, Any]:
        """What the run came to; empty until it has ended."""
        return json.loads(self._read("summary.json") or "{}")

    def _read(self, name: str) -> str:
        try:
            return (self.run_dir / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def _lines(self, name: str) -> list[dict[str, Any]]:
        lines = []
        for line in self._read(name).splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue  # one that is being written
        return lines
