"""The replay shard and its peers, in turns: lines of bench.jsonl on standard output.

    replay_bench.py --bin_dir build/release/bin --out build/bench
                    --peers_python build/peers-replay/bin/python --sb3_python build/peers-sb3/bin/python

The peers are dm-reverb, cpprb and stable-baselines3, each tuned in this run.  Nothing else should
run meanwhile: a round is tried again when others had more than --max_noise of the machine.
"""
import argparse
import pathlib
import sys
import traceback

import cases
import growth
from cases import Bench
from measure import Lines, Rounds

CASES = {case.__name__: case for case in (
    cases.append, cases.append_humanoid, cases.ack, cases.sample_uniform, cases.sample_prioritized,
    cases.sample_updates, cases.sample_humanoid, cases.pixels, cases.frames, cases.mixed,
    growth.growth, cases.memory, cases.restart, cases.follow)}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin_dir", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="for growth.json and .png")
    parser.add_argument("--data_root", help="where shards put their directories; a temporary one")
    parser.add_argument("--peers_python", help="with dm-reverb and cpprb; not given: no peers")
    parser.add_argument("--sb3_python", help="with stable-baselines3")
    parser.add_argument("--only", help=f"of {','.join(CASES)}")
    parser.add_argument("--quick", action="store_true",
                        help="one short round on a small table, to see that everything works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="of a round that others disturbed")
    parser.add_argument("--max_noise", type=float, default=0.08)
    parser.add_argument("--seconds", type=float, default=2, help="of one measurement")
    args = parser.parse_args()
    args.only = args.only.split(",") if args.only else list(CASES)
    for name in args.only:
        if name not in CASES:
            parser.error(f"there is no case {name}; there are {', '.join(CASES)}")
    if args.quick:
        args.rounds, args.repeats, args.seconds = 1, 0, 0.3
    return args


def main():
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(bin_dir=args.bin_dir.resolve(), out=args.out, data_root=args.data_root,
                  rows=20000 if args.quick else 1000000, seconds=args.seconds,
                  rounds=Rounds(args.rounds, args.repeats, args.max_noise), lines=Lines(),
                  peers_python=args.peers_python, sb3_python=args.sb3_python, quick=args.quick)
    failed = []
    for name in args.only:
        print(f"replay_bench: {name}", file=sys.stderr, flush=True)
        try:
            CASES[name](bench)
        except Exception:  # the other cases are worth having
            traceback.print_exc()
            failed.append(name)
    if failed:
        print(f"replay_bench: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
