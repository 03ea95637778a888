"""Atari games as DeepMind's agents see them: "AtariGame-v0" with the keyword `game`.

84x84 frames of one channel, every fourth, the brighter of the last two; up to 30 no-ops first; a
lost life ends an episode of training.  Rewards are clipped to their sign (Mnih et al. 2015).
Needs the package ale-py, and opencv-python-headless.
"""
import ale_py
import gymnasium
import numpy as np

gymnasium.register_envs(ale_py)


def make(game="Pong", life_loss_ends=True, render_mode=None):
    """Actions: those that the game knows.  Stacks of frames are the learner's business."""
    env = gymnasium.make(f"ALE/{game}-v5", frameskip=1, repeat_action_probability=0.0,
                         render_mode=render_mode)
    env = gymnasium.wrappers.AtariPreprocessing(env, grayscale_newaxis=True,
                                                terminal_on_life_loss=life_loss_ends)
    return gymnasium.wrappers.TransformReward(env, lambda reward: float(np.sign(reward)))


gymnasium.register("AtariGame-v0", entry_point=make, max_episode_steps=27000)
