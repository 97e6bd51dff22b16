"""Benchmark of PEARL: its batched update beside a loop over tasks, and the time split of an iteration.

The loop is what the algorithm says, task by task: each network by itself, a product of Gaussians and losses for each
task, gradients that add up, and an optimiser for each network. Both make the same step (tests/agents/test_pearl.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from metarl.agents.pearl import SMALL_ACTIONS, Pearl, PearlConfig
from metarl.bench.limits import SIDES, operations, product
from metarl.bench.timing import explain, in_turn, percent, print_table, ratio, seconds_of
from metarl.config import MOST_STEPS, check
from metarl.devices import resolve_threads, torch_threads
from metarl.envs import get, make_worlds
from metarl.envs.horizon import with_horizon
from metarl.learning.replay import Steps
from metarl.learning.soft import follow
from metarl.seeding import Streams
from metarl.types import Metrics, Params

COLUMNS = {
    "update": "tasks batched, or a loop over them; both make the same step",
    "ms": "milliseconds of an update, with the drawing of its steps",
    "updates/s": "updates a second",
    "of product": "its share of the machine's limit, a matrix product",
    "speed-up": "on the loop",
}
"""What the columns mean."""


@dataclass(frozen=True, kw_only=True)
class PearlBenchConfig:
    """An update of PEARL beside a loop over tasks, and the time split of an iteration."""

    family: str = "half-cheetah-vel@pearl19"
    """Family."""
    train_tasks: int = 16
    """Training tasks, N."""
    meta_batch: int = PearlConfig().meta_batch
    """Tasks of an update."""
    batch: int = PearlConfig().batch
    """Steps of each."""
    hidden: tuple[int, ...] = PearlConfig().hidden
    """Hidden layers of policy, Q and V."""
    steps: int = 200
    """Steps of an episode, T."""
    updates: int = 10
    """Updates of the iteration that is split."""
    rounds: int = 7
    """Rounds in which the two take turns."""
    threads: int = 0
    """Threads of engine and torch; 0 takes every core."""
    json: bool = False
    """Print JSON in place of tables."""

    def __post_init__(self) -> None:
        check(
            self,
            at_least={"train_tasks": 1, "meta_batch": 1, "batch": 1, "steps": 1, "updates": 1, "threads": 0},
            at_most={"rounds": MOST_STEPS},
        )
        check(self, at_least={"rounds": 1})


class TaskByTask:
    """An agent's update as a loop over the tasks of a meta-batch, with parameters of its own.

    Args:
        agent: whose networks, scale and settings it begins with.
    """

    def __init__(self, agent: Pearl) -> None:
        self.agent, nets = agent, agent.networks
        own = {name: copied(nets.params[name]) for name in ("encoder", "v", "policy", "temperature")}
        for number, name in enumerate(("q1", "q2")):
            own[name] = copied({key: value[number] for key, value in nets.params["q"].items()})
        self.params: dict[str, Params] = own
        self.slow_v = {name: value.clone() for name, value in nets.params["slow_v"].items()}
        rate = agent.config.learning_rate
        self.optimisers = {name: torch.optim.Adam(part.values(), lr=rate) for name, part in own.items()}

    def learn(
        self, steps: Steps, context: Steps, z_noise: Float[Tensor, "m L"], action_noise: Float[Tensor, "m n A"]
    ) -> None:
        """Take one update, in place; arguments as in `Pearl.learn`."""
        config, nets, params, count = self.agent.config, self.agent.networks, self.params, len(z_noise)
        latents: list[Tensor] = []
        for number in range(count):
            own, met = (Steps(*(part[number] for part in every)) for every in (steps, context))
            mean, variance = self._posterior(met)
            z = mean + variance.sqrt() * z_noise[number]
            latents.append(z.detach())
            told = torch.cat((nets.shown(own.observation), z.expand(len(own.reward), -1)), dim=1)
            with torch.no_grad():
                after = torch.cat((nets.shown(own.next_observation), z.expand(len(own.reward), -1)), dim=1)
                behind = nets.v(self.slow_v, after)
                reward = config.reward_scale * nets.rewarded(own.reward)
                target = reward + (1.0 - own.terminal) * config.discount * behind
            inputs = torch.cat((told, own.action), dim=1)
            errors = [(nets.q(params[name], inputs) - target).square().mean() for name in ("q1", "q2")]
            kl = 0.5 * (variance + mean.square() - 1.0 - variance.log()).sum()
            ((errors[0] + errors[1] + config.kl_weight * kl) / count).backward()
        self._step("q1", "q2", "encoder")
        log_temperature = params["temperature"]["log"]
        temperature = log_temperature.detach().exp()
        for number, z in enumerate(latents):
            observation = nets.shown(steps.observation[number])
            told = torch.cat((observation, z.expand(len(observation), -1)), dim=1)
            mean, log_std = nets.policy(params["policy"], told).chunk(2, 1)
            log_std = log_std.clamp(-20.0, 2.0)
            u = mean + log_std.exp() * action_noise[number]
            action = u.tanh()
            density = torch.distributions.Normal(mean, log_std.exp()).log_prob(u)
            squeezed = 2.0 * (math.log(2.0) - u - torch.nn.functional.softplus(-2.0 * u))
            log_prob = (density - squeezed).sum(1, keepdim=True)
            inputs = torch.cat((told, action), dim=1)
            lowest = torch.minimum(nets.q(params["q1"], inputs), nets.q(params["q2"], inputs))
            v_error = (nets.v(params["v"], told) - (lowest - temperature * log_prob).detach()).square().mean()
            loss = v_error + (temperature * log_prob - lowest).mean()
            loss = loss + SMALL_ACTIONS * (mean.square().mean() + log_std.square().mean())
            if config.automatic_temperature:
                loss = loss - (log_temperature * (log_prob.detach() - action.shape[1])).mean()
            (loss / count).backward()
        self._step("v", "policy", *(("temperature",) if config.automatic_temperature else ()))
        follow(self.slow_v, params["v"], config.target_rate)

    def _posterior(self, met: Steps) -> tuple[Float[Tensor, " L"], Float[Tensor, " L"]]:
        """Compute mean and variance of the belief about one task."""
        nets = self.agent.networks
        parts = [nets.shown(met.observation), met.action, nets.rewarded(met.reward).clamp(-10.0, 10.0)]
        if nets.looks_ahead:
            parts.append(nets.shown(met.next_observation))
        means, raw = nets.encoder(self.params["encoder"], torch.cat(parts, dim=1)).chunk(2, 1)
        variances = torch.nn.functional.softplus(raw).clamp_min(1e-7)
        variance = 1.0 / (1.0 / variances).sum(0)
        return variance * (means / variances).sum(0), variance

    def _step(self, *names: str) -> None:
        for name in names:
            self.optimisers[name].step()
        for optimiser in self.optimisers.values():
            optimiser.zero_grad()


def copied(params: Params) -> Params:
    """Return parameters of one's own that are learned."""
    return {name: value.detach().clone().requires_grad_() for name, value in params.items()}


def run_pearl(config: PearlBenchConfig) -> dict[str, Any]:
    """Measure, print and return what an update costs, and what an iteration is made of."""
    threads = resolve_threads(config.threads)
    family = with_horizon(get(config.family), config.steps)
    default = PearlConfig()
    settings = PearlConfig(
        train_tasks=config.train_tasks,
        meta_batch=config.meta_batch,
        batch=config.batch,
        hidden=config.hidden,
        updates=config.updates,
        replay_steps=default.first_rounds * config.steps * -(-default.tasks // config.train_tasks) + config.steps * 100,
    )
    streams = Streams(0)
    env = make_worlds(family, settings.worlds, threads=threads)
    agent = Pearl(settings, family.spec(), streams, torch.device("cpu"))

    def iteration() -> Metrics:
        return agent.train_iteration(env, family.space.sample, streams)

    with torch_threads(threads):
        # The first one plays every training task.
        iteration()
        assert agent.replay is not None
        windows = agent.replay.windows(context=False), agent.replay.windows(context=True)
        tasks = torch.arange(config.meta_batch) % len(agent.replay.added)
        loop = TaskByTask(agent)

        def update(learn: Callable[..., object]) -> None:
            learn(*agent.draw(tasks, windows, streams["update"]))

        counted = operations(partial(update, agent.learn))
        multiply = product()
        figures = in_turn(
            config.rounds,
            {
                "batched": partial(seconds_of, partial(update, agent.learn)),
                "loop": partial(seconds_of, partial(update, loop.learn)),
                "product": multiply,
            },
        )
        limit = figures.pop("product")
        split = iteration()
    report: dict[str, Any] = {
        "family": family.full_name,
        "meta_batch": config.meta_batch,
        "batch": config.batch,
        "hidden": list(config.hidden),
        "threads": threads,
        "rounds": config.rounds,
        "update_gflop": counted / 1e9,
        "product_gflops": 1e-9 / median(limit),
        "updates": {
            name: {
                "seconds": median(seconds),
                "per_second": 1.0 / median(seconds),
                "share_of_product": counted * ratio(limit, seconds),
                "speedup": ratio(figures["loop"], seconds),
            }
            for name, seconds in figures.items()
        },
        "iteration": {
            "env_steps": split["env/steps"],
            "collect_s": split["time/collect"],
            "policy_s": split["time/policy"],
            "update_s": split["time/update"],
            "updates": config.updates,
        },
    }
    if not config.json:
        _print_pearl(report)
    return report


def _print_pearl(report: dict[str, Any]) -> None:
    hidden = ", ".join(map(str, report["hidden"]))
    print_table(
        f"{report['family']}, {report['meta_batch']} tasks x {report['batch']} steps, layers of {hidden}, "
        f"{report['threads']} threads, median of {report['rounds']} rounds",
        list(COLUMNS),
        [
            (
                name,
                f"{row['seconds'] * 1e3:.1f}",
                f"{row['per_second']:.2f}",
                percent(row["share_of_product"]),
                f"{row['speedup']:.2f}x",
            )
            for name, row in report["updates"].items()
        ],
        words=("update",),
    )
    console = Console(highlight=False)
    console.print(explain(COLUMNS))
    split, default = report["iteration"], PearlConfig().updates
    whole = split["collect_s"] + default * report["updates"]["batched"]["seconds"]
    console.print(
        f"An iteration played {split['env_steps']:,.0f} steps in {split['collect_s']:.2f} s, {split['policy_s']:.2f} "
        f"s of it in the policy; {split['updates']} updates took {split['update_s']:.2f} s. With {default:,} updates "
        f"that makes {whole:,.1f} s, {percent(split['collect_s'] / whole)} of it playing."
    )
    console.print(
        f"In the same rounds a {SIDES['cpu']:,} x {SIDES['cpu']:,} float32 product ran at "
        f"{report['product_gflops']:,.0f} GFLOP/s. Counted for a batched update: its matrix products, "
        f"{report['update_gflop']:,.2f} GFLOP, nothing that works on single elements."
    )
