"""The peers as the benchmark sees them: workers that it asks in turns with the shard."""
import contextlib
import itertools
import pathlib
import tempfile

from measure import Interval
from shard import cpu_seconds, memory_bytes
from worker import Worker

HERE = pathlib.Path(__file__).resolve().parent
REVERB = "dm-reverb 0.14.0"
BUFFERS = {"cpprb": "cpprb 11.0.0", "stable_baselines3": "stable-baselines3 2.9.2"}
# Tried afresh in every run; the best one is measured.
INSERT_SETTINGS = [{"writer": "structured", "flush_every": 256},
                   {"writer": "structured", "flush_every": 1024},
                   {"writer": "trajectory", "flush_every": 1024}]
SAMPLE_SETTINGS = [{"workers": workers, "in_flight": in_flight}
                   for workers, in_flight in itertools.product((1, 2, 4), (64, 128, 512))]


class Reverb(contextlib.ExitStack):
    """A Reverb server and client processes."""

    def __init__(self, python, num_clients, **server):
        super().__init__()
        self._server = self._worker(python, "server", **server)
        self.port = self._server.ready["port"]
        floats = {"floats": server["floats"]} if "floats" in server else {}
        self._clients = [self._worker(python, "client", port=self.port, **floats)
                         for _ in range(num_clients)]
        self.start_seconds = self._server.ready["start_seconds"]

    def _worker(self, python, role, **flags):
        words = [f"--{name}={value}" for name, value in flags.items()]
        return self.enter_context(Worker(python, HERE / "reverb_peer.py", role, *words))

    def _together(self, clients, command, **arguments):
        """All clients at once; `rate` is their sum."""
        clients = self._clients[:clients]
        with Interval([self._server.pid, *(c.pid for c in clients)], cpu_seconds) as interval:
            for client in clients:
                client.send(command, **arguments)
            answers = [client.receive() for client in clients]
        items = sum(answer["items"] for answer in answers)
        return {"rate": sum(answer["rate"] for answer in answers), "noise": interval.noise,
                "server_us": interval.cpu[self._server.pid] / items * 1e6,
                "client_us": sum(answer["client_us"] for answer in answers) / len(answers)}

    def insert(self, clients, **arguments):
        return self._together(clients, "insert", **arguments)

    def sample(self, clients, **arguments):
        return self._together(clients, "sample", batch=256, **arguments)

    def fill(self, items):
        clients = len(self._clients)
        self.insert(clients, items=items // clients, **INSERT_SETTINGS[1])

    def best_insert(self, seconds):
        return max(INSERT_SETTINGS,
                   key=lambda s: self.insert(1, seconds=seconds, **s)["rate"])

    def best_sample(self, seconds):
        return max(SAMPLE_SETTINGS,
                   key=lambda s: self.sample(1, seconds=seconds, **s)["rate"])

    def bytes_per_item(self):
        return memory_bytes(self._server.pid) / self._clients[0].ask("items")

    def checkpoint(self):
        return self._clients[0].ask("checkpoint")


def reverb_restore_seconds(python, items):
    """(to write a checkpoint of `items`, to start from it)."""
    with tempfile.TemporaryDirectory() as folder:
        with Reverb(python, 1, checkpoint_dir=folder, capacity=items) as reverb:
            reverb.fill(items)
            written = reverb.checkpoint()
        with Reverb(python, 0, checkpoint_dir=folder, capacity=items) as reverb:
            return written, reverb.start_seconds


class Buffer:
    """An in-process buffer of `rows` transitions."""

    def __init__(self, python, name, rows, *flags):
        self._worker = Worker(python, HERE / "buffer_peer.py", name, f"--rows={rows}", *flags)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._worker.close()

    def sample(self, seconds):
        with Interval([self._worker.pid], cpu_seconds) as interval:
            answer = self._worker.ask("sample", batch=256, seconds=seconds)
        return {**answer, "noise": interval.noise}
