"""Every benchmark with its peers, in turns, into bench.jsonl.

    tests/run bench [--out D]        or        bench.py --out D --build_dir build/release

Makes the peers' virtual environments the first time (build/peers: EnvPool; build/peers-sb3:
stable-baselines3; build/peers-replay: dm-reverb and cpprb).  Nothing else should run meanwhile.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS = {"peers": ["envpool==1.2.5"], "peers-sb3": ["stable-baselines3==2.9.2", "gymnasium[mujoco]==1.4.0",
                       "mujoco==3.17.0"],
         "peers-sbx": ["sbx-rl==0.28.0"],
         "peers-replay": (HERE / "replay" / "requirements.txt").read_text().split()}


def peer_python(name):
    """The Python of a peer's own virtual environment, made if it is missing."""
    folder = ROOT / "build" / name
    python = folder / "bin" / "python"
    stamp = folder / "packages"
    wanted = "\n".join(PEERS[name])
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.check_call(["/usr/bin/python3", "-m", "venv", "--clear", str(folder)])
        subprocess.check_call([str(python), "-m", "pip", "install", "--quiet", *PEERS[name]])
        stamp.write_text(wanted)
    return str(python)


def benchmarks(tests, out):
    """Commands that print lines of bench.jsonl."""
    envpool, sb3 = peer_python("peers"), peer_python("peers-sb3")
    peer_python("peers-sbx")  # for learner_bench, as peers-sb3
    yield [sys.executable, str(HERE / "replay" / "replay_bench.py"), "--bin_dir",
           str(tests.parent / "bin"), "--out", str(out), "--peers_python",
           peer_python("peers-replay"), "--sb3_python", sb3]
    yield [sys.executable, str(HERE / "client" / "client_bench.py"), "--build_dir",
           str(tests.parent), "--peers_python", peer_python("peers-replay")]
    yield [sys.executable, str(HERE / "env" / "env_peers.py"), "--bench", str(tests / "env_bench"),
           "--peers_python", envpool]
    yield [sys.executable, str(HERE / "env" / "bridge_bench.py"), "--bench",
           str(tests / "env_bench")]
    yield [str(tests / "actor_bench")]
    yield [sys.executable, str(HERE / "learner_bench"), "--build_dir", str(tests.parent), "--rows",
           "gpu_sac,gpu_ppo,gpu_distribution,cpu_sac,cpu_ensembles,cpu_ppo"]
    yield [sys.executable, str(HERE / "system" / "scrape_bench.py"), "--build_dir",
           str(tests.parent)]
    yield [sys.executable, str(HERE / "system" / "ppo_bench.py"), "--build_dir",
           str(tests.parent), "--peers_python", sb3]


def run(command, environment, lines):
    """Passes on the lines of JSON among what the command prints, as they come; its exit code."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if line.startswith("{"):
                json.loads(line)
                print(line, end="", flush=True)
                print(line, end="", file=lines, flush=True)
    return process.returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default=str(ROOT / "build" / "bench"))
    parser.add_argument("--build_dir", default=str(ROOT / "build" / "release"))
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    failed = []
    with open(out / "bench.jsonl", "a", encoding="utf-8") as lines:
        for command in benchmarks(pathlib.Path(args.build_dir).resolve() / "tests", out):
            if run(command, environment, lines) != 0:
                failed.append(" ".join(command))
    for command in failed:
        print(f"bench: failed: {command}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
