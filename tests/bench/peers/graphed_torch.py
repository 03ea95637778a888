"""SAC updates, or PPO iterations, of a PyTorch loop as fast as PyTorch lets it be: torch.compile,
Adam fused, and the whole update captured as a CUDA graph that draws its batch on the GPU (the way of
LeanRL).  On a CPU there are no graphs: it runs as it is written, in order to be tried.

    graphed_torch.py --algorithm sac|ppo [--device cuda|cpu] [--obs 17] [--act 6] [--batch 256]
                     [--seconds 2] [--no-compile]

Prints {"value": ..., "unit": ..., "peer": ...}: SAC updates a second, or the seconds of a PPO
iteration (2,048 steps, 10 epochs of minibatches of --batch), collecting and GAE not included.
"""
import argparse
import json
import math
import time

import torch
from torch import nn

ROWS = 50000  # of the replica
STEPS, EPOCHS = 2048, 10  # of a PPO iteration
LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


def mlp(inputs, outputs, width, unit):
    return nn.Sequential(nn.Linear(inputs, width), unit(), nn.Linear(width, width), unit(),
                         nn.Linear(width, outputs))


def adam(parameters, rate, args, epsilon=1e-8):
    on_gpu = args.device == "cuda"
    return torch.optim.Adam(parameters, lr=rate, eps=epsilon, capturable=on_gpu, fused=on_gpu)


class Sac:
    """One update with its draw; the state is what torch keeps between calls."""

    def __init__(self, args):
        with torch.device(args.device):
            self.actor = mlp(args.obs, 2 * args.act, 256, nn.ReLU)
            self.critics = nn.ModuleList(mlp(args.obs + args.act, 1, 256, nn.ReLU)
                                         for _ in range(2))
            self.targets = nn.ModuleList(mlp(args.obs + args.act, 1, 256, nn.ReLU)
                                         for _ in range(2))
            self.log_alpha = torch.zeros(1, requires_grad=True)
            self.s, self.s_next = torch.rand(2, ROWS, args.obs) * 2 - 1
            self.a = torch.rand(ROWS, args.act) * 2 - 1
            self.r = torch.rand(ROWS)
        self.targets.load_state_dict(self.critics.state_dict())
        self.actor_adam = adam(self.actor.parameters(), 3e-4, args)
        self.critic_adam = adam(self.critics.parameters(), 1e-3, args)
        self.alpha_adam = adam([self.log_alpha], 1e-3, args)
        self.batch, self.act = args.batch, args.act

    def sample(self, s):
        mean, log_std = self.actor(s).chunk(2, 1)
        log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        noise = torch.randn_like(mean)
        u = mean + log_std.exp() * noise
        log_pi = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_pi = log_pi - 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))
        return u.tanh(), log_pi.sum(1)

    @staticmethod
    def smaller(critics, s, a):
        x = torch.cat([s, a], 1)
        return torch.minimum(critics[0](x), critics[1](x)).squeeze(1)

    def improve_critics(self, s, a, r, s_next):
        self.critic_adam.zero_grad()
        with torch.no_grad():
            a_next, log_pi = self.sample(s_next)
            y = r + 0.99 * (self.smaller(self.targets, s_next, a_next)
                            - self.log_alpha.exp() * log_pi)
        x = torch.cat([s, a], 1)
        loss = sum((critic(x).squeeze(1) - y).square().mean() for critic in self.critics)
        loss.backward()
        self.critic_adam.step()

    def improve_actor(self, s):
        self.actor_adam.zero_grad()
        self.alpha_adam.zero_grad()
        a, log_pi = self.sample(s)
        alpha = self.log_alpha.exp().detach()
        (alpha * log_pi - self.smaller(self.critics, s, a)).mean().backward()
        self.actor_adam.step()
        (-self.log_alpha.exp() * (log_pi.detach() - self.act)).mean().backward()
        self.alpha_adam.step()

    def update(self):
        drawn = torch.randint(ROWS, (self.batch,), device=self.s.device)
        s = self.s[drawn]
        self.improve_critics(s, self.a[drawn], self.r[drawn], self.s_next[drawn])
        self.improve_actor(s)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.targets.parameters()), list(self.critics.parameters()),
                                 0.005)


class Ppo:
    """One minibatch, drawn by `drawn`, which the caller fills."""

    def __init__(self, args):
        with torch.device(args.device):
            self.actor = mlp(args.obs, args.act, 64, nn.Tanh)
            self.critic = mlp(args.obs, 1, 64, nn.Tanh)
            self.log_std = torch.zeros(args.act, requires_grad=True)
            self.s = torch.rand(STEPS, args.obs) * 2 - 1
            self.a = torch.randn(STEPS, args.act)
            self.log_mu = -0.5 * (self.a.square() + math.log(2 * math.pi)).sum(1)
            self.advantage, self.target = torch.randn(2, STEPS)
            self.drawn = torch.zeros(args.batch, dtype=torch.int64)
        self.parameters = [*self.actor.parameters(), *self.critic.parameters(), self.log_std]
        self.adam = adam(self.parameters, 3e-4, args, 1e-5)

    def improve(self, s, a, log_mu, advantage, target):
        self.adam.zero_grad()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        z = (a - self.actor(s)) * (-self.log_std).exp()
        log_pi = (-0.5 * (z.square() + math.log(2 * math.pi)) - self.log_std).sum(1)
        r = (log_pi - log_mu).exp()
        surrogate = torch.minimum(r * advantage, r.clamp(0.8, 1.2) * advantage).mean()
        value_loss = 0.5 * (self.critic(s).squeeze(1) - target).square().mean()
        (0.5 * value_loss - surrogate).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 0.5)
        self.adam.step()

    def update(self):
        i = self.drawn
        self.improve(self.s[i], self.a[i], self.log_mu[i], self.advantage[i], self.target[i])


def compiled(learner, names):
    for name in names:
        setattr(learner, name, torch.compile(getattr(learner, name)))


def graphed(update):
    """`update` as a graph, after it has run often enough to have compiled and allocated."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            update()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update()
    return graph.replay


def await_device(args):
    if args.device == "cuda":
        torch.cuda.synchronize()


def per_second(once, args):
    """Calls of `once` a second, the device's work included."""
    for _ in range(3):
        once()
    await_device(args)
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < args.seconds:
        for _ in range(10):
            once()
        await_device(args)
        calls += 10
    return calls / (time.perf_counter() - start)


def ppo_iteration(learner, step, args):
    def iteration():
        for _ in range(EPOCHS):
            order = torch.randperm(STEPS, device=args.device)
            for begin in range(0, STEPS - args.batch + 1, args.batch):
                learner.drawn.copy_(order[begin:begin + args.batch])
                step()

    iteration()
    await_device(args)
    times, start = 0, time.perf_counter()
    while times == 0 or time.perf_counter() - start < args.seconds:
        iteration()
        await_device(args)
        times += 1
    return (time.perf_counter() - start) / times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--algorithm", choices=["sac", "ppo"], required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--obs", type=int, default=17)
    parser.add_argument("--act", type=int, default=6)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")  # tf32
    learner = Sac(args) if args.algorithm == "sac" else Ppo(args)
    on_gpu = args.device == "cuda"
    if args.compile and on_gpu:
        compiled(learner, ["improve_critics", "improve_actor"] if args.algorithm == "sac"
                 else ["improve"])
    step = graphed(learner.update) if on_gpu else learner.update
    kind = ("compile + graph" if args.compile else "graph") if on_gpu else "eager"
    if args.algorithm == "sac":
        value, unit = per_second(step, args), "updates/s"
    else:
        value, unit = ppo_iteration(learner, step, args), "s/iteration"
    print(json.dumps({"value": value, "unit": unit, "peer": f"PyTorch {torch.__version__} {kind}"}))


if __name__ == "__main__":
    main()
