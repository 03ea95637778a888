"""The benchmark's cases.  Each takes a Bench and writes its lines."""
import contextlib
import dataclasses
import functools
import pathlib

from measure import Lines, Rounds
from peers import BUFFERS, REVERB, Buffer, Reverb, reverb_restore_seconds
from shard import STRIDE_BYTES, Shard, memory_bytes, run_load

BATCH = 256
ROW_ID_BYTES = 12  # a window's id and probability in a reply
TRANSPORT = "gRPC C++ alone, equal messages"
# Under a rate limiter: rows are admitted by the message, so its size is the limiter's precision.
LIMITED_MESSAGE_ROWS = 64


@dataclasses.dataclass
class Bench:
    bin_dir: pathlib.Path
    out: pathlib.Path
    data_root: str
    rows: int  # in the table
    seconds: float  # of one measurement
    rounds: Rounds
    lines: Lines
    peers_python: str | None  # with Reverb and cpprb; None: no peers
    sb3_python: str | None
    quick: bool

    def shard(self, layout="half_cheetah", **settings):
        settings.setdefault("tables__capacity_rows", self.rows)
        return Shard(self.bin_dir, self.data_root, layout, **settings)

    def load(self, shard, mode, **flags):
        flags.setdefault("seconds", self.seconds)
        return shard.load(mode, warm_up_seconds=min(0.5, self.seconds), **flags)

    def transport(self, **flags):
        return run_load(self.bin_dir, mode="transport", seconds=self.seconds, **flags)


def append(bench):
    """Acked rows a second, messages of 64 KiB; Reverb's items beside it."""
    with contextlib.ExitStack() as stack:
        shard = stack.enter_context(bench.shard())
        shard.fill(bench.rows)
        measures = {clients: lambda n=clients: bench.load(shard, "append", clients=n)
                    for clients in (1, 2)}
        if bench.peers_python:
            reverb = stack.enter_context(Reverb(bench.peers_python, 2, capacity=bench.rows))
            best = reverb.best_insert(bench.seconds)
            for clients in (1, 2):
                measures["reverb", clients] = lambda n=clients: reverb.insert(
                    n, seconds=bench.seconds, **best)
        results = bench.rounds.in_turns(measures)
    for clients in (1, 2):
        case = f"half_cheetah/{clients}_client{'s' * (clients > 1)}"
        peer = {"peer": REVERB, "peer_results": results.get(("reverb", clients), ())}
        bench.lines.write("append", case, "rows/s", results[clients], "rows_per_second", **peer,
                          peer_key="rate")
        bench.lines.write("append_cpu", case, "us/row", results[clients], "server_us_per_row",
                          **peer, peer_key="server_us")


def append_humanoid(bench):
    with bench.shard("humanoid", tables__capacity_rows=bench.rows // 10) as shard:
        results = bench.rounds.in_turns(
            {n: lambda n=n: bench.load(shard, "append", clients=n) for n in (1, 2)})
    for clients, runs in results.items():
        case = f"humanoid/{clients}_client{'s' * (clients > 1)}"
        bench.lines.write("append", case, "rows/s", runs, "rows_per_second")
        bench.lines.write("append_cpu", case, "us/row", runs, "server_us_per_row")


def ack(bench):
    """Time from sending a message to its ack, at a pace, at both levels."""
    pace = 100000
    for level in ("PROCESS", "DISK"):
        with bench.shard(replay_server__ack=level) as shard:
            if shard.describe()["ack_level"] != level.lower():
                raise RuntimeError(f"the shard does not ack at level {level}")
            results = bench.rounds.in_turns(
                {0: lambda: bench.load(shard, "append", rows_per_second=pace)})[0]
        for quantile in ("p50", "p99"):
            bench.lines.write(f"ack_{quantile}", f"{level.lower()}/{pace}_rows_per_second", "ms",
                              results, f"ack_{quantile}_ms")


def sample_peers(bench, stack, selector, updates):
    """{peer's name: measure}"""
    if not bench.peers_python:
        return {}
    reverb = stack.enter_context(
        Reverb(bench.peers_python, 2, selector=selector, capacity=bench.rows))
    reverb.fill(bench.rows)
    best = reverb.best_sample(bench.seconds / 2)
    flags = ["--prioritized"] * (selector == "prioritized") + ["--updates"] * updates
    pythons = {"cpprb": bench.peers_python}
    if selector == "uniform":
        pythons["stable_baselines3"] = bench.sb3_python
    measures = {f"{REVERB}, {n} client{'s' * (n > 1)}":
                lambda n=n: reverb.sample(n, seconds=bench.seconds, updates=updates, **best)
                for n in (1, 2)}
    for name, python in pythons.items():
        buffer = stack.enter_context(Buffer(python, name, bench.rows, *flags))
        measures[BUFFERS[name]] = lambda b=buffer: b.sample(bench.seconds)
    return measures


def sample_half_cheetah(bench, selector, updates=False):
    """A line for each peer."""
    with contextlib.ExitStack() as stack:
        shard = stack.enter_context(bench.shard(tables__selector=selector.upper()))
        shard.load("fill", rows=bench.rows, row_priorities=True)
        peers = sample_peers(bench, stack, selector, updates)
        results = bench.rounds.in_turns(
            {"troupe": lambda: bench.load(shard, "sample", update_priorities=updates), **peers})
    case = f"half_cheetah/{bench.rows:.0e}_rows".replace("e+0", "e") + "/updates" * updates
    own = results.pop("troupe")
    for peer, peer_results in results.items() or [(None, ())]:
        bench.lines.write(f"sample_{selector}", case, "windows/s", own, "windows_per_second",
                          peer, peer_results, "rate")
        # An in-process buffer is its own server.
        key = "server_us" if peer and peer.startswith(REVERB) else "client_us"
        bench.lines.write("sample_cpu", f"{selector}/{case}", "us/window", own,
                          "server_us_per_window", peer, peer_results, key)


def sample_uniform(bench):
    sample_half_cheetah(bench, "uniform")


def sample_prioritized(bench):
    sample_half_cheetah(bench, "prioritized")


def sample_updates(bench):
    sample_half_cheetah(bench, "prioritized", updates=True)


def sample_humanoid(bench):
    """Windows a second beside what gRPC alone carries in messages of that size."""
    rows = bench.rows // 10
    for length, batch, in_flight in ((2, BATCH, 16), (17, 64, 8)):
        shape = {"batch": batch, "window_length": length, "in_flight": in_flight}
        reply = batch * (length * STRIDE_BYTES["humanoid"] + ROW_ID_BYTES)
        with bench.shard("humanoid", tables__capacity_rows=rows, tables__window__length=length,
                         learner__sac__n_step=length - 1) as shard:
            shard.fill(rows)
            results = bench.rounds.in_turns({
                "troupe": lambda: bench.load(shard, "sample", **shape),
                "transport": lambda: bench.transport(message_bytes=16, reply_bytes=reply,
                                                     in_flight=in_flight)})
        for result in results["transport"]:
            result["rate"] = result["messages_per_second"] * batch
        bench.lines.write("sample_uniform", f"humanoid/window_of_{length}", "windows/s",
                          results["troupe"], "windows_per_second", TRANSPORT,
                          results["transport"], "rate", window_bytes=reply / batch)


def pixels(bench):
    """Frames of 84x84 beside what gRPC alone carries in messages of that size; windows are stacks of
    4 frames and the next one.  And the bytes that a frame costs where it is stored."""
    # Enough that the blocks of 64 rows that streams are just filling weigh little.
    rows, length, batch, in_flight = max(bench.rows // 20, 20000), 5, 32, 8
    row, frame = STRIDE_BYTES["pixels"], 84 * 84
    reply = batch * (length * row + ROW_ID_BYTES)
    shape = {"batch": batch, "window_length": length, "in_flight": in_flight}
    message = 9 * row  # as many as fit into 64 KiB
    with bench.shard("pixels", tables__capacity_rows=rows, tables__window__length=length,
                     learner__sac__n_step=length - 1) as shard:
        shard.fill(rows + rows // 10)
        results = bench.rounds.in_turns({
            "append": lambda: bench.load(shard, "append", message_bytes=message),
            "sent": lambda: bench.transport(message_bytes=message, reply_bytes=16),
            "sample": lambda: bench.load(shard, "sample", **shape),
            "received": lambda: bench.transport(message_bytes=16, reply_bytes=reply,
                                                in_flight=in_flight)})
        stored = [{"bytes": shard.stored_bytes() / int(shard.table()["rows"])}]
    for side, key, size in (("append", "rows_per_second", row),
                            ("sent", "messages_per_second", message),
                            ("sample", "windows_per_second", reply / batch),
                            ("received", "messages_per_second", reply)):
        for result in results[side]:
            result["rate"] = result[key] * size / 1e9
    for side, alone in (("append", "sent"), ("sample", "received")):
        bench.lines.write(f"{side}_bytes", "pixels/84x84", "GB/s", results[side], "rate", TRANSPORT,
                          results[alone], "rate")
    bench.lines.write("memory", "pixels/84x84/stack_of_4", "bytes/frame", stored, "bytes",
                      frame_bytes=frame, allowed=1.05 * frame)


def frames(bench):
    """Frames of 84x84 through the actor's and the learner's own clients, by codec: a game's picture
    and, as the worst that can be, noise."""
    rows = max(bench.rows // 20, 20000)
    codecs = {"none": ("COMPRESSION_NONE", 1), "lz4": ("LZ4", 1), "zstd_1": ("ZSTD", 1),
              "zstd_6": ("ZSTD", 6)}
    for picture in ("sprites", "noise"):
        with contextlib.ExitStack() as stack:
            measures, shards = {}, {}
            for name, (codec, level) in codecs.items():
                shard = shards[name] = stack.enter_context(bench.shard(
                    tables__capacity_rows=rows, tables__window__length=5, learner__sac__n_step=4))
                load = functools.partial(shard.frames, codec=codec, frames=picture, level=level)
                load("append", rows=rows + rows // 10)
                for mode in ("append", "sample"):
                    measures[name, mode] = functools.partial(load, mode, seconds=bench.seconds)
            results = bench.rounds.in_turns(measures)
            stored = {name: shard.stored_bytes() / int(shard.table()["rows"])
                      for name, shard in shards.items()}
        for name in codecs:
            case = f"{picture}/{name}"
            for mode in ("append", "sample"):
                bench.lines.write(f"frames_{mode}", case, "GB/s", results[name, mode],
                                  "gigabytes_per_second")
                bench.lines.write(f"frames_{mode}_cpu", case, "us/frame", results[name, mode],
                                  "cpu_us_per_frame")
                bench.lines.write(f"frames_{mode}_shard_cpu", case, "us/frame",
                                  results[name, mode], "shard_us_per_frame")
            bench.lines.write("frames_memory", case, "bytes/frame", [{"bytes": stored[name]}],
                              "bytes")


def mixed_alone(bench):
    """Both at once without a rate limit: each side's share of its rate alone."""
    with bench.shard() as shard:
        shard.fill(bench.rows)
        results = bench.rounds.in_turns(
            {mode: lambda m=mode: bench.load(shard, m) for mode in ("append", "sample", "both")})
    for side, key in (("append", "rows_per_second"), ("sample", "windows_per_second")):
        for both, alone in zip(results["both"], results[side]):
            both[f"{side}_share"] = both[key] / alone[key]
        bench.lines.write(f"mixed_{side}", "half_cheetah/unlimited", f"share of {side} alone",
                          results["both"], f"{side}_share")
    return results


def mixed(bench):
    """Both at once, samples per insert held: how far the counts drift from the ratio."""
    alone = mixed_alone(bench)["sample"]
    for ratio in (8, 32, 256):
        slack = 2 * BATCH + 64 * ratio  # as common/config.cc has it
        allowed = slack + ratio * LIMITED_MESSAGE_ROWS
        with bench.shard(tables__rate_limiter__samples_per_insert=ratio,
                         tables__rate_limiter__min_size=bench.rows,
                         tables__rate_limiter__slack=slack) as shard:
            shard.fill(bench.rows)  # a little less than min_size windows, so nothing waits yet
            results = bench.rounds.in_turns({0: lambda: bench.load(
                shard, "both", samples_per_insert=ratio, min_size=bench.rows,
                message_bytes=LIMITED_MESSAGE_ROWS * STRIDE_BYTES["half_cheetah"])})[0]
        for run, sample in zip(results, alone):
            run["ratio"] = run["windows_per_second"] / max(1, run["rows_per_second"])
            run["share"] = run["windows_per_second"] / sample["windows_per_second"]
            run["drift"] = max(abs(run["drift_min_samples"]), abs(run["drift_max_samples"]))
        case = f"half_cheetah/samples_per_insert_{ratio}"
        bench.lines.write("mixed_append", case, "rows/s", results, "rows_per_second")
        bench.lines.write("mixed_sample", case, "windows/s", results, "windows_per_second")
        bench.lines.write("mixed_sample", case, "share of sample alone", results, "share")
        bench.lines.write("mixed_ratio", case, "windows/row", results, "ratio")
        bench.lines.write("mixed_drift", case, "samples", results, "drift", allowed=allowed)


def memory(bench):
    """Resident bytes a row, mapped file included, with a full table."""
    peer = []
    if bench.peers_python:
        with Reverb(bench.peers_python, 2, capacity=bench.rows) as reverb:
            reverb.fill(bench.rows)
            peer = [{"bytes": reverb.bytes_per_item()}]
    row = STRIDE_BYTES["half_cheetah"]
    for selector in ("uniform", "prioritized"):
        with bench.shard(tables__selector=selector.upper()) as shard:
            shard.fill(bench.rows + bench.rows // 10)
            bench.load(shard, "sample")
            used = [{"bytes": memory_bytes(shard.pid) / int(shard.table()["rows"])}]
        bench.lines.write("memory", f"half_cheetah/{bench.rows:.0e}_rows/{selector}".replace(
            "e+0", "e"), "bytes/row", used, "bytes", REVERB, peer,
                          row_bytes=row, allowed=1.05 * row + 60e6 / bench.rows)


def restart(bench):
    """From exec after kill -9 to serving, every row's checksum verified."""
    peer = []
    if bench.peers_python:
        written, start = reverb_restore_seconds(bench.peers_python, bench.rows)
        peer = [{"seconds": start, "written": written}]

    def again(shard):
        before = shard.table()
        shard.kill()
        seconds = shard.start()
        shard.load("sample", seconds=0.1, warm_up_seconds=0)  # fails if a window is wrong
        after = shard.table()
        if after["rows"] != before["rows"] or after["corrupt_blocks"] != "0":
            raise RuntimeError(f"{before} became {after}")
        return {"seconds": seconds, "rows": int(after["rows"])}

    for rows in (bench.rows, 10 * bench.rows):
        with bench.shard(tables__capacity_rows=rows) as shard:
            shard.fill(rows)
            results = bench.rounds.in_turns({0: lambda: again(shard)})[0]
        bench.lines.write("restart", f"half_cheetah/{rows:.0e}_rows".replace("e+0", "e"), "s",
                          results, "seconds", f"{REVERB}, from a checkpoint",
                          peer if rows == bench.rows else ())


def follow(bench):
    """A replica filled from the oldest row on."""
    with bench.shard() as shard:
        shard.fill(bench.rows)
        results = bench.rounds.in_turns({0: lambda: shard.load("follow")})[0]
    bench.lines.write("follow", f"half_cheetah/{bench.rows:.0e}_rows".replace("e+0", "e"),
                      "rows/s", results, "rows_per_second")
