"""What the processes tell: their metrics over HTTP and their lines of JSON."""

import json
import os
import re
import threading
import urllib.request

_SAMPLE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{[^}]*\})? ([^ ]+)")


def scrape(port, timeout_seconds=1.0):
    """Metrics of one process, summed over their labels; {} if it does not answer."""
    try:
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url, timeout=timeout_seconds) as answer:
            text = answer.read().decode("utf-8", "replace")
    except (OSError, ValueError):
        return {}
    values = {}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match:
            values[match[1]] = values.get(match[1], 0.0) + float(match[2])
    return values


def last_json_line(path):
    """The last whole line of a file of JSON lines; {} if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 65536))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        try:
            return json.loads(line)
        except ValueError:
            continue  # a kill -9 can leave half a line
    return {}


class Observer:
    """Scrapes all processes every two seconds in a thread, so that a hung one delays nobody.

    `latest(name)` is the newest answer of a process; thread-safe.
    """

    PERIOD_SECONDS = 2.0

    def __init__(self, port_files):
        self._port_files = port_files  # name -> path of the file that holds its metrics port
        self._lock = threading.Lock()
        self._latest = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def latest(self, name):
        with self._lock:
            return self._latest.get(name, {})

    def forget(self, name):
        """Drops the answer of a process that has ended."""
        with self._lock:
            self._latest.pop(name, None)

    def ports(self):
        """name -> metrics port, of the processes that have written one."""
        ports = {}
        for name, path in self._port_files.items():
            try:
                with open(path, encoding="utf-8") as file:
                    ports[name] = int(file.read())
            except (FileNotFoundError, ValueError):
                pass
        return ports

    def observe(self):
        for name, port in self.ports().items():
            values = scrape(port)
            if values:
                with self._lock:
                    self._latest[name] = values

    def stop(self):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.wait(self.PERIOD_SECONDS):
            self.observe()
