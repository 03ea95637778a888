# %% [markdown]
# # Troupe from Python
# Rows of your own loop (a robot, a simulator, a log) go into a replay shard; a learner of yours
# draws windows of them as NumPy arrays and publishes policies; your loop takes the newest policy.
#
#     pip install ./actor/python && deploy/up --help      # once, in a checkout of the repository
#     python actor/python/examples/tutorial.py                     # or cell by cell in an editor
#
# A test executes this file.

# %%
import os
import tempfile

import numpy as np

import troupe

# %% [markdown]
# ## A shard
# In a cluster you have the address of one (`deploy/up`, Compose, Kubernetes).  Here we start one:
# it ends with this process, and what it has acked lies in its data directory.

# %%
CONFIG = """
run: "tutorial"
tables {
  name: "replay"
  capacity_rows: 100000
  window { length: 2 }                                      # s, a, r, s'
  rate_limiter { min_size: 1000 samples_per_insert: 0 }
}
"""
folder = tempfile.TemporaryDirectory()
shard = troupe.LocalShard(CONFIG, folder.name, build_dir=os.environ.get("TROUPE_BUILD_DIR"))
client = troupe.Client(shard.address, run="tutorial")
# With certificates: troupe.Client("replay-0:7000", "tutorial", tls_dir="certs/actor")

# %% [markdown]
# ## Rows of your own loop
# A layout names the columns.  For a Gymnasium environment `troupe.Layout.of_spaces` makes it.

# %%
layout = troupe.Layout(
    troupe.Column("observation", np.float32, (2,)),
    troupe.Column("action", np.float32, (1,), low=-1, high=1),
    troupe.Column("reward"),
    environment="PushACart-v0")


class Cart:
    """Push it to the middle within 50 steps."""

    def reset(self, random):
        self.place, self.speed, self.time = random.uniform(-1, 1), 0.0, 0
        return [self.place, self.speed]

    def step(self, action):
        self.speed += 0.1 * float(np.clip(action[0], -1, 1))
        self.place += 0.1 * self.speed
        self.time += 1
        done = abs(self.place) < 0.02 and abs(self.speed) < 0.02
        return [self.place, self.speed], -abs(self.place), done, self.time == 50


random = np.random.default_rng(0)
cart = Cart()
with client.writer(layout) as writer:  # leaving the block waits until every row is acked
    for _ in range(50):
        observation, ended = cart.reset(random), False
        while not ended:
            action = random.uniform(-1, 1, 1)
            after, reward, terminated, truncated = cart.step(action)
            # Once the episode has ended, its last observation becomes a row of its own.
            writer.step(observation=observation, action=action, reward=reward,
                        terminated=terminated, truncated=truncated, next_observation=after)
            observation, ended = after, terminated or truncated
print(writer.stats)

# %% [markdown]
# Whole episodes that you have already go faster: `writer.add_episode(observations, action=...,
# reward=..., terminated=..., truncated=...)` with arrays, `observations` one longer than the rest.

# %%
logged = random.uniform(-1, 1, (31, 2)).astype(np.float32)
with client.writer(layout) as writer:
    writer.add_episode(logged, action=np.zeros((30, 1), np.float32),
                       reward=np.zeros(30, np.float32), terminated=False, truncated=True)

# %% [markdown]
# ## Windows
# A batch maps the columns' names to arrays [batch, window, ...].  A window that ends an episode
# has its last observation in the last row, flagged.

# %%
with client.sampler(batch_size=256) as sampler:
    batch = sampler.next_batch(timeout=30)
    s, s_next = batch["observation"][:, 0], batch["observation"][:, 1]
    a, r, d = batch["action"][:, 0], batch["reward"][:, 0], batch.terminated[:, 1]
    print(s.shape, a.shape, r.shape, s_next.shape, int(d.sum()), "terminated")
    print(sampler.counts)
    # Of a table with `selector: PRIORITIZED`:
    #   w = batch.weights(beta=0.4);  sampler.update_priorities(batch, abs(td_error))

# %% [markdown]
# ## Every row, in order
# For a data set, a plot, or a replica of your own.  `position` can be saved (it is JSON): a later
# follower goes on there.

# %%
with client.follow() as follower:
    steps = sum(int((~rows.final).sum()) for rows in follower.until_caught_up(timeout=30))
    position = follower.position
assert steps == sampler.counts.env_steps
print(f"everything that was appended came back: {steps} steps")

# %% [markdown]
# ## Policies
# A learner publishes them; actors, in C++ or your loop, subscribe.  Here the image comes from
# nobody's learner and holds one tensor; a snapshot of Troupe's learner acts:
# `snapshot.policy().mode(obs)`.

# %%
from troupe import safetensors  # noqa: E402

with client.subscribe() as subscriber:
    client.publish(safetensors.encode({"gain": np.array([-1, -2], np.float32)}), client.new_epoch())
    snapshot = subscriber.wait_newer(0, timeout=30)
    gain = safetensors.parse(snapshot.image).tensors["gain"]
    print(f"version {snapshot.epoch}.{snapshot.counter} says {gain}")

# %% [markdown]
# ## A whole training run
#
#     with troupe.Run("sac_pendulum", "runs/mine", sets=["total_env_steps=20000"]) as run:
#         run.wait()
#     print(run.summary()["eval_return_mean"])

# %%
shard.close()
folder.cleanup()
