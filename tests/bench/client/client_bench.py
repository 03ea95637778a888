"""The Python client beside dm-reverb's Python client, in turns: lines of bench.jsonl.

    client_bench.py --build_dir build/release --peers_python build/peers-replay/bin/python

Each has its own server, one client process, and a table of --rows transitions of HalfCheetah.
Reverb's writers and samplers are tuned in this run.  Troupe appends whole episodes ("episodes":
what bulk data takes), step by step ("steps": what a loop around an environment takes), and steps
of 8 environments at once ("steps_of_8"); Reverb has no other way than step by step, so all stand
beside that.
"""
import argparse
import contextlib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "replay"))

from measure import Interval, Lines, Rounds  # noqa: E402
from peers import REVERB, Reverb  # noqa: E402
from shard import Shard, cpu_seconds  # noqa: E402
from worker import Worker  # noqa: E402

BATCH = 256
PREFETCH = (4, 8, 16)
PEER = f"{REVERB}, Python"


class Troupe:
    """A shard and one client process for each prefetch."""

    def __init__(self, stack, build_dir, rows, seconds):
        self._shard = stack.enter_context(
            Shard(build_dir / "bin", None, tables__capacity_rows=rows))
        self._clients = {
            prefetch: stack.enter_context(Worker(
                sys.executable, HERE / "troupe_client.py", "--package", build_dir / "python",
                "--address", self._shard.target, "--prefetch", prefetch))
            for prefetch in PREFETCH}
        self._best = PREFETCH[0]
        self.ask("episodes", rows=rows)
        rates = {}
        for self._best in PREFETCH:
            rates[self._best] = self.sample(seconds / 2)["rate"]
        self._best = max(rates, key=rates.get)

    def ask(self, command, **arguments):
        client = self._clients[self._best]
        with Interval([self._shard.pid, client.pid], cpu_seconds) as interval:
            answer = client.ask(command, **arguments)
        return {**answer, "noise": interval.noise}

    def sample(self, seconds):
        return self.ask("sample", batch=BATCH, seconds=seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build_dir", type=pathlib.Path, required=True)
    parser.add_argument("--peers_python", help="with dm-reverb; not given: no peer")
    parser.add_argument("--rows", type=int, default=1000000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of one measurement")
    args = parser.parse_args()
    rounds, lines = Rounds(args.rounds, 2, 0.08), Lines("client")
    with contextlib.ExitStack() as stack:
        troupe = Troupe(stack, args.build_dir.resolve(), args.rows, args.seconds)
        measures = {name: lambda name=name: troupe.ask(name, seconds=args.seconds)
                    for name in ("episodes", "steps", "vector")}
        measures["sample"] = lambda: troupe.sample(args.seconds)
        if args.peers_python:
            reverb = stack.enter_context(Reverb(args.peers_python, 1, capacity=args.rows))
            reverb.fill(args.rows)
            insert = reverb.best_insert(args.seconds / 2)
            draw = reverb.best_sample(args.seconds / 2)
            measures["reverb_insert"] = lambda: reverb.insert(1, seconds=args.seconds, **insert)
            measures["reverb_sample"] = lambda: reverb.sample(1, seconds=args.seconds, **draw)
        results = rounds.in_turns(measures)
    for name, case, unit, own, peer in (
            ("append", "half_cheetah/episodes", "rows/s", "episodes", "reverb_insert"),
            ("append", "half_cheetah/steps", "rows/s", "steps", "reverb_insert"),
            ("append", "half_cheetah/steps_of_8", "rows/s", "vector", "reverb_insert"),
            ("sample", f"half_cheetah/{args.rows:.0e}_rows".replace("e+0", "e"), "windows/s",
             "sample", "reverb_sample")):
        for suffix, key, of in (("", "rate", unit), ("_cpu", "client_us", "us/" + unit[:-3])):
            lines.write(name + suffix, case, of, results[own], key, PEER, results.get(peer, ()),
                        key)


if __name__ == "__main__":
    main()
