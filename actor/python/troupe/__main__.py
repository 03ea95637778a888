"""troupe export | card | play | plot: policies that leave a run."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .errors import TroupeError
from .policy import Policy

EXIT_OK, EXIT_FAILURE, EXIT_USAGE = 0, 1, 2


def _policy(args: argparse.Namespace) -> Policy:
    """Of a folder or file, or the newest that shards hold."""
    if not args.shards:
        return Policy.load(args.source)
    from .client import Client

    client = Client(args.shards.split(","), run=args.run_name, tls_dir=args.tls_dir,
                    insecure=args.insecure)
    with client.subscribe() as subscriber:
        return subscriber.wait_newer(timeout=args.timeout).policy()


def _export(args: argparse.Namespace) -> str:
    from . import export

    policy = _policy(args)
    output = args.output or f"policy{export.FORMATS[args.format]}"
    export.export(policy, output, args.format)
    metadata = policy.metadata
    said = export.describe(policy)
    lines = [f"{output}: policy of {metadata.run} after {metadata.env_steps:,} steps"]
    for kind in ("inputs", "outputs"):
        lines += [f"  {kind[:-1]} {name}: {what}" for name, what in said[kind].items()
                  if name != "head" or args.format == "onnx"]
    return "\n".join(lines)


def _card(args: argparse.Namespace) -> str:
    from . import model_card, source

    sources = [source.find(path, args.config) for path in args.sources]
    files = model_card.write_card(sources, args.output, video=args.video)
    return f"{args.output}: {', '.join(files)}"


def _play(args: argparse.Namespace) -> str:
    from . import play, source

    found = source.find(args.source, args.config)
    if not found.config_text:
        raise ValueError(f"{args.source} does not say which environment it is for: --config FILE")
    seed = found.config.seed if args.seed is None else args.seed
    episodes = play.play(found, args.output, episodes=args.episodes, seed=seed,
                         max_steps=args.max_steps, at_random=args.sample)
    lines = [f"episode {i + 1}: return {episode.total_reward:.1f} in {episode.steps} steps"
             for i, episode in enumerate(episodes)]
    return "\n".join([*lines, str(args.output)])


def _plot(args: argparse.Namespace) -> str:
    from . import learning_curve, source

    runs = {}
    for path in args.sources:
        evaluations = source.evaluations_of(path)
        if not evaluations:
            raise ValueError(f"{path}: no evaluations")
        runs[str(pathlib.Path(path))] = evaluations
    first = pathlib.Path(args.sources[0]).resolve().name
    title = args.title or (first if len(runs) == 1 else f"{len(runs)} runs")
    learning_curve.draw(runs, title, args.output)
    return str(args.output)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(prog="troupe", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], str], about: str) -> Any:
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        return command

    where = "a run's folder, a checkpoint's, one that `troupe card` made, or a policy's file"
    config = "configuration, where the folder has none"
    one = add("export", _export, "writes the policy for other programs")
    one.add_argument("source", nargs="?", help=where)
    one.add_argument("--shards", metavar="HOST:PORT,...",
                     help="instead of a source: the newest policy of a cluster that runs")
    one.add_argument("--run", dest="run_name", default="troupe", help="of --shards: the run's name")
    one.add_argument("--tls_dir", help="of --shards: folder of certificates, such as certs/actor")
    one.add_argument("--insecure", action="store_true", help="plaintext beyond this machine")
    one.add_argument("--timeout", type=float, default=30.0, help="of --shards, in seconds")
    one.add_argument("--format", choices=["onnx", "torchscript"], default="onnx")
    one.add_argument("-o", "--output", help="default: policy.onnx or policy.pt")
    one = add("card", _card, "packs the policy with a model card, for the Hugging Face hub")
    one.add_argument("sources", nargs="+", metavar="source",
                     help=f"{where}; more of them: the same task with other seeds")
    one.add_argument("-o", "--output", required=True, help="folder")
    one.add_argument("--video", action="store_true", help="with an episode, replay.mp4")
    one.add_argument("--config", help=config)
    one = add("play", _play, "renders episodes of the policy")
    one.add_argument("source", help=where)
    one.add_argument("-o", "--output", required=True, help=".mp4 (needs ffmpeg) or .gif")
    one.add_argument("--episodes", type=_positive, default=1)
    one.add_argument("--max_steps", type=_positive, help="of an episode")
    one.add_argument("--seed", type=int, help="of the first episode; default: the run's")
    one.add_argument("--sample", action="store_true", help="act as in training, at random")
    one.add_argument("--config", help=config)
    one = add("plot", _plot, "draws return against steps, of several runs with their spread")
    one.add_argument("sources", nargs="+", metavar="run", help="a run's folder")
    one.add_argument("-o", "--output", required=True, type=pathlib.Path,
                     help=".png, .svg or .pdf")
    one.add_argument("--title", default="")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes as of Troupe's programs: 0 done, 1 failed, 2 wrong use."""
    whole = parser()
    args = whole.parse_args(arguments)
    if args.command == "export" and bool(args.source) == bool(args.shards):
        whole.error("export: either a source or --shards")
    try:
        print(args.run(args))
    except (OSError, ValueError, RuntimeError, TroupeError) as error:
        print(f"troupe {args.command}: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except ImportError as error:
        print(f"troupe {args.command}: {error}; pip install 'troupe[export,play]' has what is "
              "missing", file=sys.stderr)
        return EXIT_FAILURE
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
