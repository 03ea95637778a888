"""dm-reverb as a peer: a server, or a client that inserts and samples (see worker.py).

Runs in Reverb's own virtual environment.  Items are whole transitions packed into one column of
float32, which is the fastest layout for Reverb: 43 floats for HalfCheetah.
"""
import argparse
import resource
import time

import numpy as np
import reverb
import tensorflow as tf

from worker import answer

TABLE = "replay"
STEPS_BETWEEN_CLOCKS = 256
NUM_PATTERNS = 1024


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def serve(args):
    sampler = {"uniform": reverb.selectors.Uniform, "fifo": reverb.selectors.Fifo,
               "prioritized": lambda: reverb.selectors.Prioritized(0.6)}[args.selector]()
    table = reverb.Table(TABLE, sampler, reverb.selectors.Fifo(), args.capacity,
                         reverb.rate_limiters.MinSize(1),
                         signature=tf.TensorSpec([args.floats], tf.float32))
    checkpointer = None
    if args.checkpoint_dir:
        checkpointer = reverb.platform.checkpointers_lib.DefaultCheckpointer(args.checkpoint_dir)
    begin = time.perf_counter()
    server = reverb.Server([table], port=None, checkpointer=checkpointer)
    answer({"port": server.port, "start_seconds": time.perf_counter() - begin}, {})


class Client:
    """Commands of a client; rates are of one process."""

    def __init__(self, args):
        self._address = f"localhost:{args.port}"
        self._client = reverb.Client(self._address)
        rng = np.random.default_rng(args.port)
        self._rows = list(rng.standard_normal((NUM_PATTERNS, args.floats), dtype=np.float32))
        self._floats = args.floats

    def insert(self, writer, flush_every, seconds=0, items=0):
        """For `seconds`, or so many items; until all of them are in the table."""
        insert = {"structured": self._structured, "trajectory": self._trajectory}[writer]
        begin, cpu = time.perf_counter(), cpu_seconds()

        def goes_on(inserted):
            return (inserted < items) if items else time.perf_counter() < begin + seconds

        inserted = insert(goes_on, flush_every)
        elapsed = time.perf_counter() - begin
        return {"rate": inserted / elapsed, "items": inserted,
                "client_us": (cpu_seconds() - cpu) / inserted * 1e6}

    def _structured(self, goes_on, flush_every):
        spec = tf.TensorSpec([self._floats], tf.float32)
        pattern = reverb.structured_writer.pattern_from_transform(spec, lambda step: step[-1])
        config = reverb.structured_writer.create_config(pattern, TABLE)
        writer = self._client.structured_writer([config])
        return self._append(goes_on, flush_every, writer.append, writer.flush)

    def _trajectory(self, goes_on, flush_every):
        with self._client.trajectory_writer(num_keep_alive_refs=1, validate_items=False) as writer:
            def append(row):
                writer.append(row)
                writer.create_item(TABLE, 1.0, writer.history[-1])
            return self._append(goes_on, flush_every, append, writer.flush)

    def _append(self, goes_on, flush_every, append, flush):
        inserted, rows = 0, self._rows
        while goes_on(inserted):
            for i in range(inserted, inserted + STEPS_BETWEEN_CLOCKS):
                append(rows[i % NUM_PATTERNS])
            inserted += STEPS_BETWEEN_CLOCKS
            if flush_every and inserted % flush_every == 0:
                flush(flush_every // 2)
        flush(0)
        return inserted

    def sample(self, batch, seconds, workers, in_flight, updates=False):
        """Batches that lie in one piece of memory, each looked at."""
        dataset = reverb.TrajectoryDataset.from_table_signature(
            self._address, TABLE, max_in_flight_samples_per_worker=in_flight,
            num_workers_per_iterator=workers).batch(batch, drop_remainder=True)
        iterator = iter(dataset.prefetch(4))
        rng = np.random.default_rng(1)
        for _ in range(8):
            next(iterator)
        begin, cpu, sampled = time.perf_counter(), cpu_seconds(), 0
        while time.perf_counter() < begin + seconds:
            sample = next(iterator)
            sampled += sample.data.shape[0]
            if updates:
                keys = sample.info.key.numpy()
                priorities = rng.exponential(size=len(keys))
                self._client.mutate_priorities(TABLE, dict(zip(keys.tolist(), priorities.tolist())))
        elapsed = time.perf_counter() - begin
        return {"rate": sampled / elapsed, "items": sampled,
                "client_us": (cpu_seconds() - cpu) / sampled * 1e6}

    def items(self):
        return self._client.server_info()[TABLE].current_size

    def checkpoint(self):
        begin = time.perf_counter()
        self._client.checkpoint()
        return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("role", choices=["server", "client"])
    parser.add_argument("--floats", type=int, default=43)
    parser.add_argument("--port", type=int)
    parser.add_argument("--selector", default="uniform")
    parser.add_argument("--capacity", type=int, default=1000000)
    parser.add_argument("--checkpoint_dir")
    args = parser.parse_args()
    if args.role == "server":
        serve(args)
        return
    client = Client(args)
    answer({}, {name: getattr(client, name)
                for name in ("insert", "sample", "items", "checkpoint")})


if __name__ == "__main__":
    main()
