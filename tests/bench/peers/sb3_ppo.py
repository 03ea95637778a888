"""Times stable-baselines3's PPO on HalfCheetah-v5 with the numbers of ppo_half_cheetah.txtpb.

Runs in the peer's own virtual environment; prints one line of JSON.  Tuned for the peer: one thread
for LibTorch, which is its fastest with networks this small, and its environments in one process,
which with a MuJoCo step of 30 us beats its subprocesses.
"""
import argparse
import json
import time

import gymnasium
import stable_baselines3
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=61440)
    parser.add_argument("--num_envs", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    envs = VecNormalize(DummyVecEnv([lambda: gymnasium.make("HalfCheetah-v5")] * args.num_envs))
    model = PPO("MlpPolicy", envs, n_steps=2048 // args.num_envs, batch_size=64, n_epochs=10,
                clip_range=0.2, learning_rate=3e-4, gae_lambda=0.95, gamma=0.99, device="cpu",
                policy_kwargs={"net_arch": [64, 64]}, seed=1)
    model.learn(total_timesteps=2048)  # the first batch pays for what is loaded lazily
    begin = time.monotonic()
    model.learn(total_timesteps=args.steps, reset_num_timesteps=False)
    seconds = time.monotonic() - begin
    print(json.dumps({"steps_per_second": args.steps / seconds,
                      "peer": f"stable-baselines3 {stable_baselines3.__version__}"}))


if __name__ == "__main__":
    main()
