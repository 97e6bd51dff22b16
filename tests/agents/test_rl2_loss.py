"""The gradient of RL2's loss by plain loops over trials and steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metarl.agents.rl2 import Rl2, Rl2Core
from metarl.envs import make_worlds
from metarl.learning.trials import Inputs, Trials
from metarl.nets.heads import BesideCore, Emitted
from metarl.nets.memory import Core
from metarl.seeding import Streams
from metarl.types import EnvSpec, Trajectories
from tests.helpers.toys import DOUBLE, normal
from tests.helpers.trials import SMALL, Ragged, collected, make, mean_and_deviation

# --- the gradient ------------------------------------------------------------------------------------------------


def plain_gru(core: Core, rows: Tensor) -> list[Tensor]:
    weights = dict(core.named_parameters())
    hidden = rows.new_zeros(core.width)
    states = []
    for row in rows:
        ours = weights["cells.weight_ih_l0"] @ row + weights["cells.bias_ih_l0"]
        theirs = weights["cells.weight_hh_l0"] @ hidden + weights["cells.bias_hh_l0"]
        (r, z, n), (hr, hz, hn) = ours.chunk(3), theirs.chunk(3)
        reset, update = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
        hidden = (1.0 - update) * torch.tanh(n + reset * hn) + update * hidden
        states.append(plain_norm(weights, "norm", hidden))
    return states


def plain_lstm(core: Core, rows: Tensor) -> list[Tensor]:
    weights = dict(core.named_parameters())
    hidden, cell = rows.new_zeros(2, core.width)
    states = []
    for row in rows:
        gates = weights["cells.weight_ih_l0"] @ row + weights["cells.bias_ih_l0"]
        gates = gates + weights["cells.weight_hh_l0"] @ hidden + weights["cells.bias_hh_l0"]
        enter, forget, new, leave = gates.chunk(4)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        hidden = torch.sigmoid(leave) * torch.tanh(cell)
        states.append(plain_norm(weights, "norm", hidden))
    return states


def plain_transformer(core: Core, rows: Tensor) -> list[Tensor]:
    """Every moment anew from all that came before it, so that nothing can come from behind it."""
    return [core(rows[None, : t + 1])[0, -1] for t in range(len(rows))]


def plain_norm(weights: dict[str, Any], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean()
    scaled = centred / (centred.square().mean() + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def plain_head(head: nn.Module, seen: Tensor, feature: Tensor) -> Tensor:
    """Return what policy or values make of an observation that they are shown, if any, and of the memory."""
    if isinstance(head, Emitted):
        x, numbers = seen, head.emit.weight @ feature + head.emit.bias
        for layer, (inputs, outputs) in enumerate(pairwise(head.sizes)):
            x = x.tanh() if layer else x
            x = numbers[: inputs * outputs].view(outputs, inputs) @ x + numbers[inputs * outputs :][:outputs]
            numbers = numbers[(inputs + 1) * outputs :]
        return x
    x = torch.cat((seen, feature))
    layers = [part for part in head.modules() if isinstance(part, nn.Linear)]
    for number, layer in enumerate(layers):
        x = layer.weight @ (x.tanh() if number else x) + layer.bias
    return x


PLAIN: dict[str, Callable[[Core, Tensor], list[Tensor]]] = {
    "gru": plain_gru,
    "hyper": plain_gru,
    "lstm": plain_lstm,
    "transformer": plain_transformer,
}


SEEN = (-1.0, 1.0)
"""Returns from every step of a trial that were seen before: values are scaled by mean 0 and deviation 1."""


@dataclass
class PlainStep:
    """One step of a trial, as one would write it down."""

    reward: float
    chance: Tensor
    """Log-probability under the present policy."""
    entropy: Tensor
    value: Tensor
    advantage: float = 0.0
    returned: float = 0.0
    """What the value should have been."""
    target: float = 0.0
    """The same, scaled as values are."""
    weight: float = 0.0
    """The advantage, standardised."""


def plain_trial(
    agent: Rl2, spec: EnvSpec, inputs: Inputs, episodes: list[Trajectories], world: int
) -> tuple[list[PlainStep], float]:
    """Return the steps of one trial, and the value behind the last of them."""
    network, rows, taken = agent.network, [], []
    mean, deviation, size = inputs.observation.mean, inputs.observation.deviation, inputs.reward.size
    action, reward, ended = torch.zeros(2, dtype=DOUBLE), 0.0, 0.0

    def row(observation: Tensor) -> Tensor:
        done = action if inputs.discrete else action.clamp(-1.0, 1.0)
        seen = ((observation - mean) / deviation).clamp(-10.0, 10.0)
        scaled = (torch.tensor([reward], dtype=DOUBLE) / size).clamp(-10.0, 10.0)
        return torch.cat((seen, done, scaled, torch.tensor([ended], dtype=DOUBLE)))

    for episode in episodes:
        steps = int(episode.mask[world].sum())
        for t in range(steps):
            rows.append(row(episode.observations[world, 0, t]))
            action, reward = episode.actions[world, 0, t], float(episode.rewards[world, 0, t])
            ended = float(t == steps - 1)
            taken.append((action, reward))
    rows.append(row(episodes[-1].final_observations[world, 0]))
    trial = []
    core = network.core.core if isinstance(network.core, BesideCore) else network.core
    features = PLAIN[agent.config.core](core, torch.stack(rows))
    shown = [seen[: agent.config.shown(spec)] for seen in rows]
    for seen, feature, (action, reward) in zip(shown, features, taken, strict=False):
        output, value = plain_head(network.policy, seen, feature), plain_head(network.value, seen, feature).squeeze(0)
        if network.log_std is None:
            logs = output - output.exp().sum().log()
            chance, entropy = (logs * action).sum(), -(logs.exp() * logs).sum()
        else:
            std = network.log_std.exp()
            density = (-0.5 * ((action - output) / std) ** 2).exp() / (std * math.sqrt(2.0 * math.pi))
            chance, entropy = density.log().sum(), (0.5 * (2.0 * math.pi * math.e * std**2).log()).sum()
        trial.append(PlainStep(reward, chance, entropy, value))
    behind = float(plain_head(network.value, shown[-1], features[-1]).detach())
    return trial, 0.0 if bool(episodes[-1].terminated[world]) or agent.config.finite_horizon else behind


def plain_loss(agent: Rl2, trials: list[tuple[list[PlainStep], float]], chosen: list[int], shift: Tensor) -> Tensor:
    """Return PPO's loss on some of the trials, in loops; the old log-probabilities are the present ones + `shift`."""
    config = agent.config
    for trial, behind in trials:
        following, advantage = behind, 0.0
        for step in reversed(trial):
            value = float(step.value.detach())
            advantage = step.reward + config.discount * following - value + config.discount * config.trace * advantage
            step.advantage, step.returned, following = advantage, advantage + value, value
    steps = [step for trial, _ in trials for step in trial]
    longest = max(len(trial) for trial, _ in trials)
    by_step = [
        mean_and_deviation([*SEEN, *(trial[t].returned for trial, _ in trials if t < len(trial))])
        for t in range(longest)
    ]
    for trial, _ in trials:
        group = trial if config.advantages == "task" else steps
        mean, deviation = mean_and_deviation([step.advantage for step in group])
        size = math.sqrt(sum(step.returned**2 for step in group) / len(group))
        for step, (middle, spread) in zip(trial, by_step, strict=False):
            step.target = (step.returned - middle) / spread
            step.weight = (step.advantage - mean) / (deviation + 1e-10 * size)
    parts = []
    for number in chosen:
        for t, step in enumerate(trials[number][0]):
            old = step.chance.detach() + shift[number, t]
            ratio = (step.chance - old).exp()
            clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
            gain = torch.minimum(ratio * step.weight, clipped * step.weight)
            error = (step.value - step.target) ** 2
            parts.append(-gain + config.value_weight * error - config.entropy * step.entropy)
    return torch.stack(parts).mean()


@pytest.mark.parametrize(
    ("core", "discrete", "options"),
    [
        ("gru", False, {}),
        ("gru", True, {"advantages": "task"}),
        ("lstm", True, {"finite_horizon": True}),
        ("transformer", False, {"advantages": "task"}),
        ("gru", False, {"head_observations": True}),
        ("lstm", True, {"head": (3, 5)}),
        ("transformer", False, {"head": (3,), "head_observations": True}),
        ("hyper", True, {}),
        ("hyper", False, {"head": (3,)}),
    ],
)
def test_the_gradient_is_a_plain_loops(
    core: Rl2Core, discrete: bool, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Ragged(discrete=discrete)
    config = replace(SMALL, core=core, width=8, discount=0.9, trace=0.8, max_kl=100.0, max_gradient_norm=1e9, **options)
    agent = make(config, family.spec(), double=True)
    agent.inputs.observation.update(torch.tensor([[1.0, 0.5], [-0.4, 2.0]]))
    agent.inputs.reward.update(torch.tensor([[2.0], [1.0]]))
    agent.returns.update(torch.tensor(SEEN)[:, None].expand(-1, len(agent.returns.mean)))
    inputs, before = copy.deepcopy(agent.inputs), copy.deepcopy(agent)
    episodes = collected(agent, monkeypatch)
    # As if the policy had been another one: some of the ratios are clipped, on either side.
    shift = 0.4 * normal(config.tasks, config.episodes * family.horizon, seed=9)
    original = agent._measure

    def measure(rows: Tensor, trials: Trials) -> tuple[Tensor, Tensor]:
        log_probs, values = original(rows, trials)
        return log_probs + shift[:, : log_probs.shape[1]], values

    gradients: list[dict[str, Tensor]] = []
    step = agent.optimiser.step

    def watched_step() -> None:
        gradients.append({n: p.grad.clone() for n, p in agent.network.named_parameters() if p.grad is not None})
        step()

    monkeypatch.setattr(agent, "_measure", measure)
    monkeypatch.setattr(agent.optimiser, "step", watched_step)
    env = make_worlds(family, config.tasks, threads=1, dtype=DOUBLE)
    agent.train_iteration(env, family.space.sample, Streams(7))

    trials = [plain_trial(before, family.spec(), inputs, episodes, world) for world in range(config.tasks)]
    assert len({len(trial) for trial, _ in trials}) > 1
    first = torch.randperm(config.tasks, generator=Streams(7)["update"])[:3].tolist()
    plain_loss(before, trials, first, shift).backward()
    for name, parameter in before.network.named_parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) or name.endswith("cells.bias_hh_l0"), name
        torch.testing.assert_close(gradients[0][name], parameter.grad, rtol=1e-9, atol=1e-11, msg=name)
    assert len(gradients) == config.epochs * config.minibatches
