"""The bridge beside Gymnasium itself and beside the built-in HalfCheetah-v5: the same actions from the
same state, the same rows.

    python bridge_parity.py --actor build/release/bin/troupe-actor
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import gymnasium
import numpy as np

SEED, STEPS = 11, 300
# Gymnasium computes with float32 actions as it gets them; the built-in one in float64.
REWARD_TOLERANCE = 1e-6


def probe(actor, actions, *flags):
    """What troupe-actor --probe says of each step: observation, reward, terminated, truncated."""
    with tempfile.NamedTemporaryFile("w", suffix=".actions") as file:
        for action in actions:
            file.write(json.dumps([float(x) for x in action]) + "\n")
        file.flush()
        out = subprocess.run([actor, f"--probe={file.name}", f"--set=seed={SEED}", "--metrics_port=-1",
                              *flags], capture_output=True, text=True, check=True,
                             env=dict(os.environ, TROUPE_PYTHON=sys.executable)).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def by_hand(env_id, actions):
    env = gymnasium.make(env_id)
    observation, _ = env.reset(seed=SEED)
    data = env.unwrapped.data
    state = [*data.qpos, *data.qvel]
    lines = [{"observation": observation}]
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        lines.append({"observation": observation, "reward": reward, "terminated": terminated,
                      "truncated": truncated})
    return state, lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--actor", required=True)
    args = parser.parse_args()
    env_id = "HalfCheetah-v5"
    actions = np.random.default_rng(SEED).uniform(-1, 1, (STEPS, 6)).astype(np.float32)
    state, expected = by_hand(env_id, actions)
    bridged = probe(args.actor, actions, f"--set=environment.gymnasium.id={env_id}")
    native = probe(args.actor, actions, f"--set=environment.id={env_id}",
                   "--probe_state=" + ",".join(repr(float(x)) for x in state))
    assert len(expected) == len(bridged) == len(native) == STEPS + 1
    for step, (want, got, built_in) in enumerate(zip(expected, bridged, native)):
        assert np.array_equal(want["observation"], got["observation"]), step
        row, native_row = (np.float32(x["observation"]) for x in (got, built_in))
        assert np.allclose(row, native_row, rtol=1e-5, atol=1e-6), (step, row, native_row)
        if step == 0:
            continue
        assert want["reward"] == got["reward"], (step, want, got)
        assert abs(got["reward"] - built_in["reward"]) < REWARD_TOLERANCE, (step, got, built_in)
        for flag in ("terminated", "truncated"):
            assert want[flag] == got[flag] == built_in[flag], step
    print(f"{STEPS} steps of {env_id}: the bridge gives Gymnasium's numbers, bit for bit, and the "
          "built-in environment's rows")


if __name__ == "__main__":
    sys.exit(main())
