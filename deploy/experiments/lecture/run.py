"""The lecture on off-policy actor-critic methods as an experiment: each idea on and off, on one task.

    build/venv/bin/python deploy/experiments/lecture/run.py --out runs/lecture
        [--task half_cheetah] [--seeds 3] [--ppo_steps 1000000] [--sac_steps 100000]
        [--only NAME]... [--draw_only] [--build_dir D] [--jobs N]

Every arm is a run of deploy/up, through actors, shards and learner; a run that is complete is not
made again, so the experiment may be stopped and started.  A run takes about 2 cores: --jobs is how
many are made at once.  --build_dir: where the programs are, built already.  Draws one figure for each question into
--out: return of deterministic episodes against environment steps, mean and spread over the seeds.
"""
import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")
import numpy  # noqa: E402  (the backend comes first)
from matplotlib import pyplot  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "deploy"))
from learning_curve import read_evaluations  # noqa: E402

# The settings of an arm, on top of deploy/configs/ALGORITHM_TASK.txtpb.
ARMS = {
    "ppo": {
        "clip": [],
        "kl_penalty": ["learner.ppo.surrogate=KL_PENALTY"],
        "importance": ["learner.ppo.surrogate=IMPORTANCE"],
        "policy_gradient": ["learner.ppo.surrogate=POLICY_GRADIENT", "learner.ppo.epochs=1",
                            "learner.ppo.minibatch_size=0"],
        "monte_carlo": ["learner.ppo.value_target=MONTE_CARLO"],
        "one_step": ["learner.ppo.value_target=N_STEP", "learner.ppo.n_step=1"],
    },
    "sac": {
        "reparameterized": [],
        "score_function": ["learner.sac.actor_gradient=SCORE_FUNCTION"],
        "score_function_no_baseline": ["learner.sac.actor_gradient=SCORE_FUNCTION",
                                       "learner.sac.score_function_baseline=false"],
        "v_from_replay": ["learner.sac.critic_kind=V_FROM_REPLAY"],
        "fixed_temperature": ["learner.sac.entropy=FIXED_TEMPERATURE",
                              "learner.sac.initial_alpha=0.2"],
        "no_entropy": ["learner.sac.entropy=NO_ENTROPY"],
    },
}

# A question, and the arms that answer it.
FIGURES = {
    "surrogate": ("Many steps on one batch: what keeps the policy near its data?",
                  [("ppo", "clip"), ("ppo", "kl_penalty"), ("ppo", "importance"),
                   ("ppo", "policy_gradient")]),
    "target": ("What to expect of the future: GAE, all of it, or one step and the value?",
               [("ppo", "clip"), ("ppo", "monte_carlo"), ("ppo", "one_step")]),
    "critic": ("A replay buffer: fit Q, or V?",
               [("sac", "reparameterized"), ("sac", "v_from_replay")]),
    "gradient": ("How to climb Q: through the action, or by the score function?",
                 [("sac", "reparameterized"), ("sac", "score_function"),
                  ("sac", "score_function_no_baseline")]),
    "entropy": ("The entropy term: automatic, fixed or none?",
                [("sac", "reparameterized"), ("sac", "fixed_temperature"), ("sac", "no_entropy")]),
    "algorithm": ("SAC against PPO, by steps", [("sac", "reparameterized"), ("ppo", "clip")]),
}
NAMES = {"clip": "PPO (clip, GAE)", "reparameterized": "SAC (Q, reparameterized)"}


def run_dir(args, algorithm, arm, seed):
    return args.out / f"{args.task}_{algorithm}_{arm}_{seed}"


def complete(folder, steps):
    try:
        summary = json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):
        return False
    return "eval_return_mean" in summary and summary["env_steps"] >= steps


def train(args, algorithm, arm, seed):
    folder = run_dir(args, algorithm, arm, seed)
    steps = args.ppo_steps if algorithm == "ppo" else args.sac_steps
    if complete(folder, steps):
        return
    config = ROOT / "deploy" / "configs" / f"{algorithm}_{args.task}.txtpb"
    sets = [f"seed={seed}", f"total_env_steps={steps}", f"run={folder.name}",
            f"evaluator.interval_env_steps={max(1, steps // 25)}", *ARMS[algorithm][arm]]
    print(f"{folder.name}: {steps:,} steps", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    built = ["--no-build", "--build_dir", args.build_dir] if args.build_dir else []
    with open(f"{folder}.log", "w", encoding="utf-8") as log:
        code = subprocess.run(
            [ROOT / "deploy" / "up", "--no-prometheus", "--config", config, "--run_dir", folder,
             *built, *[f"--set={word}" for word in sets]], stdout=log, stderr=subprocess.STDOUT,
            check=False).returncode
    if code != 0:
        print(f"{folder.name}: exit code {code}, see {folder}.log", file=sys.stderr)


def curve(args, algorithm, arm):
    """Steps, and the returns of each seed at them; of the seeds that there are."""
    runs = []
    for seed in range(1, args.seeds + 1):
        path = run_dir(args, algorithm, arm, seed) / "evaluator" / "evaluations.jsonl"
        evaluations = read_evaluations(path) if path.exists() else []
        if len(evaluations) > 1:
            runs.append(([e["env_steps"] for e in evaluations],
                         [e["return_mean"] for e in evaluations]))
    if not runs:
        return None
    steps = numpy.linspace(0, min(run[0][-1] for run in runs), 50)
    return steps, numpy.array([numpy.interp(steps, *run) for run in runs])


def draw(args, name):
    question, arms = FIGURES[name]
    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=120)
    for algorithm, arm in arms:
        points = curve(args, algorithm, arm)
        if points is None:
            continue
        steps, returns = points
        label = NAMES.get(arm, arm.replace("_", " "))
        (line,) = axes.plot(steps, returns.mean(0), label=f"{label}")
        axes.fill_between(steps, returns.min(0), returns.max(0), alpha=0.2, linewidth=0,
                          color=line.get_color())
    axes.set_title(question)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of deterministic episodes")
    axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.grid(alpha=0.3)
    axes.legend(loc="best", title=f"mean of {args.seeds}; lowest to highest seed")
    figure.tight_layout()
    figure.savefig(args.out / f"{name}.png")
    pyplot.close(figure)


def table(args):
    """Final returns by arm and seed, as lines of Markdown."""
    yield "| arm | final return by seed | mean |"
    yield "|---|---|---|"
    for algorithm, arms in ARMS.items():
        for arm in arms:
            points = curve(args, algorithm, arm)
            if points is None:
                continue
            finals = points[1][:, -1]
            yield (f"| {algorithm} {arm} | {' / '.join(f'{r:,.0f}' for r in finals)} "
                   f"| {finals.mean():,.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--task", default="half_cheetah")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ppo_steps", type=int, default=1000000)
    parser.add_argument("--sac_steps", type=int, default=100000)
    parser.add_argument("--only", action="append", choices=list(FIGURES),
                        help="a figure; default: all")
    parser.add_argument("--draw_only", action="store_true")
    parser.add_argument("--build_dir", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    figures = args.only or list(FIGURES)
    wanted = dict.fromkeys(arm for name in figures for arm in FIGURES[name][1])
    if not args.draw_only:
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for _ in pool.map(lambda run: train(args, *run),
                              [(*arm, seed) for seed in range(1, args.seeds + 1)
                               for arm in wanted]):
                pass
    for name in figures:
        draw(args, name)
    text = "\n".join(table(args)) + "\n"
    (args.out / "returns.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
