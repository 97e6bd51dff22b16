"""RL2: a policy with a memory, trained over whole trials so that it learns to learn (Duan et al. 2016).

A trial is n episodes in a row with one task. The policy sees, at every step of it,

    (observation, previous action, previous reward, whether the previous step ended an episode)

and its memory lasts from the first step of the trial to its last; the last triple of an episode reaches it with the
first observation of the next. It is trained by PPO (Schulman et al. 2017) on the trial's return: advantages run across
the episodes and stop at the trial's end. What adapts at test time is the memory alone.

    A_t = Σ_l (γλ)^l δ_{t+l},   δ_t = r_t + γ V_{t+1} - V_t,   V_{t+1} = 0 behind the trial's last step
    max_θ  mean_t  min(ρ_t A_t, clip(ρ_t, 1 - ε, 1 + ε) A_t),   ρ_t = π_θ / π_old

Where the time limit cut the trial's last episode, V of what would have come takes the place of the 0, unless
`finite_horizon` says that nothing was to come: the memory can count the steps. Inside a trial there is nothing to
bootstrap: behind the last step of an episode comes the first of the next, whether a terminal state or the time limit
ended it.

Whole trials go through the core at once (metarl/nets/memory.py), in minibatches of trials; the states are computed anew
from the first step. Observations, and rewards as inputs, are scaled by running moments; values by those of the returns
from each step of a trial on, so that the network need not learn how much of the trial is left. All are in the
checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from metarl.config import check
from metarl.errors import NotFiniteError, UserError, nearest
from metarl.learning.returns import gae
from metarl.learning.rollout import collect
from metarl.nets.memory import CoreName, Memory, blank, make_core
from metarl.nets.moments import Moments
from metarl.nets.policy import Categorical, Normal
from metarl.ranks import ALONE, Ranks
from metarl.seeding import Streams
from metarl.types import BatchEnv, EnvSpec, Metrics, SampleTasks, Tasks, Trajectories

LARGEST_INPUT = 10.0
"""Scaled observations and rewards are cut off there, deviations."""
ACT_GAIN = 0.01
"""Scale of the policy head's initial weights: small, so that training starts near zero actions, or even chances."""


@dataclass(frozen=True, kw_only=True)
class Rl2Config:
    """Defaults are for robots; for bandits and MDPs see the README."""

    iterations: int = 400
    """Updates, over which learning rate and entropy weight go from their first values to their final ones."""
    tasks: int = 100
    """Trials of an update, each with a task of its own, M."""
    episodes: int = 2
    """Episodes of a trial, n."""
    core: CoreName = "gru"
    """Memory: gru, lstm or transformer."""
    width: int = 128
    """Size of the memory's features, H."""
    layers: int = 1
    """Layers of a transformer."""
    discount: float = 0.99
    """γ per step."""
    trace: float = 0.95
    """λ of the advantages."""
    finite_horizon: bool = False
    """Nothing follows a trial's end: never bootstrap the value there."""
    advantages: Literal["batch", "task"] = "batch"
    """What advantages are standardised over: all trials of the update, or each trial by itself."""
    clip: float = 0.2
    """ε of the clipped objective."""
    epochs: int = 4
    """Passes over the trials in an update."""
    minibatches: int = 10
    """Steps of the optimiser in a pass."""
    learning_rate: float = 1e-3
    """Of AdamW, at the start."""
    final_learning_rate: float = 1e-4
    """After the last of the iterations, with a straight line between."""
    weight_decay: float = 0.0
    """Of AdamW."""
    entropy: float = 0.0
    """Weight of the policy's entropy in the objective, at the start."""
    final_entropy: float = 0.0
    """After the last of the iterations, with a straight line between."""
    value_weight: float = 0.5
    """Weight of the values' squared error."""
    max_gradient_norm: float = 0.5
    """Gradients are shortened to this norm."""
    max_kl: float = 0.05
    """The update ends early where KL(π_old ‖ π) has come to this, nats."""
    initial_std: float = 1.0
    """Initial standard deviation of the actions, in units of half the action range."""

    @property
    def worlds(self) -> int:
        """Parallel worlds of a training iteration, B: the episodes of a trial follow one another."""
        return self.tasks

    def __post_init__(self) -> None:
        # Layer norm of a single number would leave nothing of it.
        check(self, at_least={"iterations": 0, "tasks": 1, "episodes": 1, "width": 2, "layers": 1})
        check(self, at_least={"epochs": 1, "minibatches": 1, "weight_decay": 0.0, "entropy": 0.0, "final_entropy": 0.0})
        check(self, at_least={"discount": 0.0, "trace": 0.0, "value_weight": 0.0, "final_learning_rate": 0.0})
        check(self, above={"clip": 0.0, "learning_rate": 0.0, "max_gradient_norm": 0.0, "max_kl": 0.0})
        check(self, above={"initial_std": 0.0}, at_most={"discount": 1.0, "trace": 1.0})
        for name, choices in (("core", get_args(CoreName)), ("advantages", ("batch", "task"))):
            if getattr(self, name) not in choices:
                raise UserError(f"Got --{name} {getattr(self, name)}.{nearest(getattr(self, name), choices)}")
        if self.minibatches > self.tasks:
            raise UserError(
                f"Got --minibatches {self.minibatches} for --tasks {self.tasks}. A minibatch has at least one trial: "
                "ask for as many tasks, or fewer minibatches."
            )


def input_size(spec: EnvSpec) -> int:
    """Return the size I of what the network receives at a step: observation, action, reward and end."""
    return spec.observation_size + spec.action_size + 2


class Network(nn.Module):
    """Core, policy head and value head."""

    def __init__(self, config: Rl2Config, spec: EnvSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.core = make_core(
            config.core,
            inputs=input_size(spec),
            width=config.width,
            layers=config.layers,
            context=config.episodes * spec.horizon + 1,
            generator=generator,
        )
        self.policy = blank(nn.Linear, config.width, spec.action_size)
        self.value = blank(nn.Linear, config.width, 1)
        self.log_std = None
        if not spec.discrete:
            self.log_std = nn.Parameter(torch.full((spec.action_size,), config.initial_std).log())
        with torch.no_grad():
            nn.init.orthogonal_(self.policy.weight, gain=ACT_GAIN, generator=generator)
            nn.init.orthogonal_(self.value.weight, generator=generator)
            self.policy.bias.zero_()
            self.value.bias.zero_()

    def forward(self, inputs: Float[Tensor, "N L I"]) -> tuple[Normal | Categorical, Float[Tensor, "N L"]]:
        """Compute the action distributions and the (scaled) values of whole trials."""
        features = self.core(inputs)
        return self.act(features), self.value(features).squeeze(-1)

    def act(self, features: Float[Tensor, "*N H"]) -> Normal | Categorical:
        """Compute the action distribution from the core's features."""
        output = self.policy(features)
        return Categorical(output) if self.log_std is None else Normal(output, self.log_std.expand(1, -1))


@dataclass(frozen=True, kw_only=True)
class Trials:
    """M trials with the steps of their episodes in a row, padded at the end only, to L steps.

    Attributes:
        observations, actions, rewards: of every step, zero in the padding; actions as the policy gave them.
        ended: 1 for the last step of an episode.
        mask: 1 for real steps.
        final: observation after the last step.
        cut: whose last episode the time limit ended, not the task.
    """

    observations: Float[Tensor, "M L O"]
    actions: Float[Tensor, "M L A"]
    rewards: Float[Tensor, "M L"]
    ended: Float[Tensor, "M L"]
    mask: Float[Tensor, "M L"]
    final: Float[Tensor, "M O"]
    cut: Bool[Tensor, " M"]

    @property
    def lengths(self) -> Int[Tensor, " M"]:
        """Real steps of every trial."""
        return self.mask.sum(1).long()


def join(episodes: list[Trajectories]) -> Trials:
    """Put the episodes of each trial in a row; K = 1 in all of them."""

    def in_a_row(parts: list[Tensor]) -> Tensor:
        return torch.cat([part.squeeze(1) for part in parts], dim=1)

    mask = in_a_row([episode.mask for episode in episodes])
    observations = in_a_row([episode.observations for episode in episodes])
    actions = in_a_row([episode.actions for episode in episodes])
    rewards = in_a_row([episode.rewards for episode in episodes])
    # The last real step of an episode is one that no real step of the same episode follows.
    ended = in_a_row([e.mask - pad(e.mask, (0, 1))[..., 1:] for e in episodes])
    last = episodes[-1]
    trials = Trials(
        observations=observations,
        actions=actions,
        rewards=rewards,
        ended=ended,
        mask=mask,
        final=last.final_observations.squeeze(1),
        cut=~last.terminated.squeeze(1),
    )
    if bool((mask > 0).all()):
        return trials
    # Episodes that ended early leave gaps: real steps move to the front, in their order.
    order = (mask == 0).long().argsort(dim=1, stable=True)[:, : int(mask.sum(1).max())]

    def closed(rows: Tensor) -> Tensor:
        return (
            rows.gather(1, order[..., None].expand(-1, -1, rows.shape[-1]))
            if rows.dim() == 3
            else rows.gather(1, order)
        )

    names = ("observations", "actions", "rewards", "ended", "mask")
    return replace(trials, **{name: closed(getattr(trials, name)) for name in names})


class Inputs:
    """What the network receives: the observation and the triple of the step before, scaled.

    Args:
        spec: the family's sizes.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self.discrete = spec.discrete
        self.observation = Moments(spec.observation_size)
        self.reward = Moments(1)

    def __call__(
        self,
        observation: Float[Tensor, "*N O"],
        action: Float[Tensor, "*N A"],
        reward: Float[Tensor, "*N"],
        ended: Float[Tensor, "*N"],
    ) -> Float[Tensor, "*N I"]:
        """Put the parts together: an observation, and action, reward and end of the step before it."""
        mean, deviation, _ = self.observation.on(observation)
        seen = (observation - mean) / deviation
        # The environment clips actions: what was done is remembered, not what was asked for.
        done = action if self.discrete else action.clamp(-1.0, 1.0)
        scaled = reward / self.reward.on(reward)[2]
        rest = torch.stack((scaled.clamp(-LARGEST_INPUT, LARGEST_INPUT), ended), dim=-1)
        return torch.cat((seen.clamp(-LARGEST_INPUT, LARGEST_INPUT), done, rest), dim=-1)

    def of(self, trials: Trials) -> Float[Tensor, "M moments I"]:
        """Return the inputs of whole trials, and of the moment behind each step: row t + 1 follows step t."""

        def after_nothing(rows: Tensor) -> Tensor:
            return torch.cat((torch.zeros_like(rows[:, :1]), rows), dim=1)

        observations = torch.cat((trials.observations, torch.zeros_like(trials.observations[:, :1])), dim=1)
        # Behind the last real step stands the final observation.
        place = trials.lengths[:, None, None].expand(-1, 1, observations.shape[-1])
        observations = observations.scatter(1, place, trials.final[:, None])
        previous = (after_nothing(rows) for rows in (trials.actions, trials.rewards, trials.ended))
        return self(observations, *previous)

    def update(self, trials: Trials, ranks: Ranks) -> None:
        """Take in what was met, by all ranks."""
        real = trials.mask > 0
        self.observation.update(trials.observations[real], ranks=ranks)
        self.reward.update(trials.rewards[real][:, None], ranks=ranks)


class Actor:
    """The policy in the worlds of a trial, with what each of them remembers (see `metarl.types.MemoryPolicy`).

    Attributes:
        memory: of every world; None before the first step of the trial.
        ranks: which of them have a share of the worlds each, as these B.
    """

    def __init__(self, network: Network, inputs: Inputs, device: torch.device, ranks: Ranks = ALONE) -> None:
        self.network = network
        self.inputs = inputs
        self.device = device
        self.ranks = ranks
        self.memory: Memory | None = None
        self._waiting: Tensor | None = None

    def begin_episode(self) -> None:
        """Let all worlds take part again."""
        self._waiting = None

    @torch.no_grad()
    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Take in a moment and draw an action."""
        features, self.memory = self.look(observation)
        action = self.network.act(features).sample(generator, self.ranks).to(observation.device)
        if self._waiting is None:
            self._action = action
        else:
            self._action = torch.where(self._waiting[:, None], self._action, action)
        return action

    @torch.no_grad()
    def look(self, observation: Float[Tensor, "B O"]) -> tuple[Float[Tensor, "B H"], Memory]:
        """Return the features at a moment and the memory after it, and stay as before it."""
        memory = self.memory
        if memory is None:
            worlds = len(observation)
            memory = self.network.core.begin(worlds)
            self._action = observation.new_zeros(worlds, self.network.policy.out_features)
            self._reward = observation.new_zeros(worlds)
            self._ended = observation.new_zeros(worlds)
        inputs = self.inputs(observation, self._action, self._reward, self._ended).to(self.device)
        waiting = None if self._waiting is None else self._waiting.to(self.device)
        return self.network.core.step(inputs, memory, waiting)

    def carried(self, order: Int[Tensor, " B"]) -> Actor:
        """Return the policy with everything that world `order[i]` remembers in world i; this one keeps its own."""
        other = Actor(self.network, self.inputs, self.device, self.ranks)
        if self.memory is not None:
            other.memory = tuple(part[order.to(part.device)] for part in self.memory)
            other._action, other._reward, other._ended = (x[order] for x in (self._action, self._reward, self._ended))
        if self._waiting is not None:
            other._waiting = self._waiting[order]
        return other

    def see(self, reward: Float[Tensor, " B"], ended: Bool[Tensor, " B"]) -> None:
        """Keep the rest of the triple for the next moment."""
        if self._waiting is None:
            self._reward, self._ended = reward, ended.to(reward)
            # To look would make the host wait for a GPU.
            self._waiting = ended if ended.is_cuda or bool(ended.any()) else None
        else:
            self._reward = torch.where(self._waiting, self._reward, reward)
            self._ended = torch.where(self._waiting, self._ended, ended.to(reward))
            self._waiting = self._waiting | ended


@dataclass(frozen=True)
class TrialLearner:
    """M new tasks being learned in memory (see `metarl.types.Learner`).

    What was learned is in the memory of the policy that made the experience; there is nothing to compute from it.
    """

    policy: Actor

    def learn(self, experience: Trajectories) -> TrialLearner:
        """Return the learner: its memory has the experience already."""
        return self


class Rl2:
    """The agent.

    Args:
        config: its settings.
        spec: the family's sizes.
        streams: `init` draws the initial parameters.
        device: where the network and the update live.
        ranks: the processes that train it together: every minibatch has the trials that it would have in one process,
            and a rank computes those of them that are its own.
    """

    name = "rl2"
    pools = False

    def __init__(
        self, config: Rl2Config, spec: EnvSpec, streams: Streams, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self.config = config
        self.device = device
        self.ranks = ranks
        self.tasks = ranks.share(config.tasks)
        self.trial = config.episodes
        self.network = Network(config, spec, streams["init"]).to(device)
        self.inputs = Inputs(spec)
        self.returns = Moments(config.episodes * spec.horizon)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, eps=1e-5
        )
        self.iteration = 0

    # -- training ---------------------------------------------------------------------------------------------------

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        """Play one trial of every task and improve the policy on them."""
        config = self.config
        tasks = sample_tasks(config.tasks, "train", streams["tasks"]).select(self.ranks.rows(config.tasks))
        actor = Actor(self.network, self.inputs, self.device, self.ranks)
        episodes = [
            collect(env, actor, tasks, 1, streams["rollout"], new_trial=number == 0, ranks=self.ranks)
            for number in range(config.episodes)
        ]
        started = time.perf_counter()
        trials = join([episode.to(self.device) for episode in episodes])
        update = self._update(trials, streams["update"])
        self.inputs.update(trials, self.ranks)
        self.iteration += 1
        first, last = episodes[0], episodes[-1]
        collect_seconds = sum(episode.seconds for episode in episodes)
        steps = float(trials.mask.sum())
        return {
            "return/pre": float(first.returns.mean()),
            "return/post": float(last.returns.mean()),
            "return/gain": float(last.returns.mean() - first.returns.mean()),
            "return/trial": float(trials.rewards.sum(1).mean()),
            **update,
            "episode/length": float(last.mask.sum(2).mean()),
            "episode/terminated": float(last.terminated.float().mean()),
            **last.success_rate,
            "env/steps": steps,
            **{f"reward/{name}": value for name, value in last.terms.items()},
            "speed/env_steps_per_second": steps / collect_seconds,
            "time/collect": collect_seconds,
            "time/policy": sum(episode.policy_seconds for episode in episodes),
            "time/update": time.perf_counter() - started,
        }

    def _update(self, trials: Trials, generator: torch.Generator) -> Metrics:
        """Take the epochs of one update."""
        config = self.config
        everything = self.inputs.of(trials)
        old, values = self._measure(everything, trials)
        advantages, targets, explained = self._advantages(trials, values)
        inputs = everything[:, :-1]
        part = 1.0 - min(self.iteration / max(config.iterations, 1), 1.0)
        rate = config.final_learning_rate + part * (config.learning_rate - config.final_learning_rate)
        entropy_weight = config.final_entropy + part * (config.entropy - config.final_entropy)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

        names = ("update/value_error", "update/clipped", "update/gradient_norm", "policy/entropy")
        # On the device until the end: every look at a figure makes the host wait for a GPU.
        sums = torch.zeros(len(names), dtype=torch.float64, device=self.device)
        steps, kl, enough = 0, 0.0, False
        for rows, mask in self._minibatches(trials, generator):
            # Of all ranks, so that their losses add up to that of the minibatch.
            count = self.ranks.sum(mask.sum())
            distribution, value = self.network(inputs[rows])
            log_ratio = (distribution.log_prob(trials.actions[rows]) - old[rows]) * mask
            ratio = log_ratio.exp()
            # Schulman's estimate of KL(π_old ‖ π): never negative, and exact in the mean over actions of π_old.
            kl = float(self.ranks.sum(((ratio - 1.0 - log_ratio) * mask).sum().detach()) / count)
            if kl > config.max_kl:
                enough = True
                break
            advantage = advantages[rows]
            clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
            gain = (torch.minimum(ratio * advantage, clipped * advantage) * mask).sum() / count
            error = ((value - targets[rows]).square() * mask).sum() / count
            entropy = (distribution.entropy() * mask).sum() / count
            loss = -gain + config.value_weight * error - entropy_weight * entropy
            self.optimiser.zero_grad()
            loss.backward()
            self._add_gradients()
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.max_gradient_norm)
            if not bool(norm.isfinite()):
                raise NotFiniteError("the policy gradient is not finite: look for NaN in observations or rewards")
            self.optimiser.step()
            steps += 1
            outside = (((ratio - 1.0).abs() > config.clip) * mask).sum() / count
            # The norm is the same on all ranks, where the others are parts of a sum.
            sums += torch.stack((error, outside, norm / self.ranks.size, entropy)).detach()
        totals = self.ranks.sum(dict(zip(names, sums.tolist(), strict=True)) if steps else {})
        metrics = {name: total / steps for name, total in totals.items()}
        if self.network.log_std is not None:
            metrics["policy/std"] = float(self.network.log_std.detach().exp().mean())
        return metrics | {
            "update/kl": kl,
            "update/steps": float(steps),
            "update/early_stop": float(enough),
            "update/learning_rate": rate,
            "update/entropy_weight": entropy_weight,
            "update/explained_variance": explained,
        }

    def _minibatches(
        self, trials: Trials, generator: torch.Generator
    ) -> Iterator[tuple[Int[Tensor, " N"], Float[Tensor, "N L"]]]:
        """Yield this rank's trials in every minibatch of every epoch, with their masks."""
        first = self.ranks.rows(self.config.tasks).start
        for _ in range(self.config.epochs):
            order = torch.randperm(self.config.tasks, generator=generator).to(self.device)
            for rows in order.tensor_split(self.config.minibatches):
                own = rows[(rows >= first) & (rows < first + self.tasks)] - first
                if len(own):
                    yield own, trials.mask[own]
                else:
                    # Some trial, of which nothing counts: all ranks take part in every step.
                    yield own.new_zeros(1), torch.zeros_like(trials.mask[:1])

    def _add_gradients(self) -> None:
        """Give every parameter the sum of its gradients over the ranks."""
        leaves = [value for value in self.network.parameters() if value.grad is not None]
        for leaf, gradient in zip(leaves, self.ranks.sum([leaf.grad for leaf in leaves]), strict=True):
            leaf.grad = gradient

    @torch.no_grad()
    def _measure(
        self, inputs: Float[Tensor, "M moments I"], trials: Trials
    ) -> tuple[Float[Tensor, "M L"], Float[Tensor, "M moments"]]:
        """Return the log-probabilities of the actions, and the scaled values with those behind each last step."""
        log_probs, values = [], []
        parts = min(self.config.minibatches, len(inputs))
        for rows in torch.arange(len(inputs), device=self.device).tensor_split(parts):
            features = self.network.core(inputs[rows])
            values.append(self.network.value(features).squeeze(-1))
            log_probs.append(self.network.act(features[:, :-1]).log_prob(trials.actions[rows]))
        return torch.cat(log_probs), torch.cat(values)

    def _advantages(
        self, trials: Trials, scaled: Float[Tensor, "M moments"]
    ) -> tuple[Float[Tensor, "M L"], Float[Tensor, "M L"], float]:
        """Return advantages, standardised; what the (scaled) values should have been; what part of it they explain."""
        config = self.config
        mask = trials.mask
        steps = mask.shape[1]
        # What is behind the trial's last step is scaled as the last step itself.
        moments = [*range(steps), steps - 1]
        shift, scale = (x.to(scaled)[moments] for x in (self.returns.mean, self.returns.deviation))
        values = shift + scale * scaled
        behind = values.gather(1, trials.lengths[:, None]).squeeze(1)
        behind = torch.zeros_like(behind) if config.finite_horizon else behind * trials.cut
        values = values[:, :-1] * mask
        advantages = gae(trials.rewards, values, mask, config.discount, config.trace, behind)
        targets = advantages + values
        later = (0, len(self.returns.mean) - steps)
        self.returns.update(pad(targets, later), pad(mask, later), self.ranks)
        shift, scale = (x.to(scaled)[:steps] for x in (self.returns.mean, self.returns.deviation))
        # About the mean of each step: what the values know beside how much of the trial is left.
        left, spread = self.ranks.sum((advantages.square().sum(), ((targets - shift) * mask).square().sum()))
        explained = 1.0 - float(left / spread.clamp_min(1e-12))
        over, ranks = ((0, 1), self.ranks) if config.advantages == "batch" else ((1,), ALONE)
        count, total = ranks.sum((mask.sum(over, keepdim=True), advantages.sum(over, keepdim=True)))
        centred = (advantages - total / count) * mask
        deviation = (ranks.sum(centred.square().sum(over, keepdim=True)) / count).sqrt()
        return centred / (deviation + 1e-8), (targets - shift) / scale, explained

    # -- test and storage -------------------------------------------------------------------------------------------

    def start(self, tasks: Tasks) -> TrialLearner:
        """Return the learner of M new tasks, which remembers nothing yet."""
        return TrialLearner(Actor(self.network, self.inputs, self.device))

    def state_dict(self) -> dict[str, Any]:
        """Return network, optimiser, moments and the number of updates."""
        return {
            # Copies: the optimiser works in place.
            "network": {name: value.to("cpu", copy=True) for name, value in self.network.state_dict().items()},
            "optimiser": deepcopy(self.optimiser.state_dict()),
            "observation": self.inputs.observation.state_dict(),
            "reward": self.inputs.reward.state_dict(),
            "returns": self.returns.state_dict(),
            "iteration": self.iteration,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore everything.

        Raises:
            ValueError: it does not fit.
        """
        try:
            self.network.load_state_dict(state["network"])
        except RuntimeError as error:
            raise ValueError(f"the stored network does not fit: {error}") from error
        self.optimiser.load_state_dict(deepcopy(state["optimiser"]))
        self.inputs.observation.load_state_dict(state["observation"])
        self.inputs.reward.load_state_dict(state["reward"])
        self.returns.load_state_dict(state["returns"])
        self.iteration = state["iteration"]
