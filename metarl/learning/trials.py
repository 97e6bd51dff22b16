"""Trials: the episodes with one task in a row, and what a memory receives of them.

While acting, a memory receives one moment after the other; while learning, whole trials at once. Both are made by
`Inputs`, so that they are the same numbers.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from metarl import memory
from metarl.errors import UserError
from metarl.learning.description import Part
from metarl.nets.moments import Moments
from metarl.nets.pictures import pixels_in_bounds
from metarl.ranks import Ranks
from metarl.types import EnvSpec, Trajectories

LARGEST_INPUT = 10.0
"""Scaled observations and rewards are cut off there, deviations."""


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


def final_observations(episodes: list[Trajectories]) -> Float[Tensor, "M n O"]:
    """Return the observation after the last step of each of the n episodes of every trial; K = 1 in all of them."""
    return torch.cat([episode.final_observations for episode in episodes], dim=1)


def observations_after(trials: Trials, finals: Float[Tensor, "M n O"]) -> Float[Tensor, "M L O"]:
    """Return the observation after each step: that of the next one, or the episode's final one; any in the padding."""
    following = pad(trials.observations, (0, 0, 0, 1))[:, 1:]
    # How many episodes are over before a step; in the padding all are.
    # Whole numbers: sums of others would not be the same each time on a GPU.
    ended = trials.ended.long()
    over = (ended.cumsum(1) - ended).clamp_max(finals.shape[1] - 1)
    of_episode = finals.gather(1, over[..., None].expand_as(following))
    return torch.where(trials.ended[..., None] > 0, of_episode, following)


def memory_of_trials(config: Any, spec: EnvSpec, *, core: str, rows: int) -> int:
    """Reckon what playing M trials with a memory and learning from them needs beside worlds and weights, bytes.

    Args:
        config: the agent's, with `tasks`, `episodes`, `width` and `layers`.
        spec: the family's sizes.
        core: gru, lstm or transformer.
        rows: trials whose graph is in memory at once.
    """
    length = config.episodes * spec.horizon
    played = memory.episodes(config.tasks * length, spec.observation_size, spec.action_size)
    return played + memory.memory_update(
        trials=config.tasks, length=length, rows=rows, core=core, width=config.width, blocks=config.layers
    )


def check_minibatches(config: Any) -> None:
    """Refuse minibatches without a trial.

    Args:
        config: an agent's, with `tasks` (trials of an update) and `minibatches`.

    Raises:
        UserError: there are more of them than trials.
    """
    if config.minibatches > config.tasks:
        raise UserError(
            f"Got --minibatches {config.minibatches} for --tasks {config.tasks}. There have to be as many "
            "trials: ask for as many tasks, or fewer minibatches."
        )


def input_size(spec: EnvSpec) -> int:
    """Return the size I of what the network receives at a step: observation, action, reward and end."""
    return spec.observation_size + spec.action_size + 2


class Inputs:
    """What the network receives: the observation and the triple of the step before, scaled.

    Before anything was met, observations and rewards are shown as 0: what an untrained network does must not hang on
    their units. Pixels of pictures that have an encoder are brought to 0..1 by the bounds of their space instead.

    Args:
        spec: the family's sizes, and the pictures that have an encoder.
        center_rewards: rewards are shown less their mean, by their deviation; if not, by their size. At the first
            moment of a trial, which no step came before, the reward counts as 0, and is shown as 0 would be.
    """

    def __init__(self, spec: EnvSpec, *, center_rewards: bool = False) -> None:
        self.center_rewards = center_rewards
        self.action_size = spec.action_size
        self.discrete = spec.discrete
        self.pictures = spec.pictures
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
        scaled = torch.zeros_like(reward)
        if self.observation.known:
            mean, deviation, size = self.reward.on(reward)
            scaled = (reward - mean) / deviation if self.center_rewards else reward / size
        rest = torch.stack((scaled.clamp(-LARGEST_INPUT, LARGEST_INPUT), ended), dim=-1)
        return torch.cat((self.shown(observation), self.done(action), rest), dim=-1)

    def shown(self, observation: Float[Tensor, "*N O"]) -> Float[Tensor, "*N O"]:
        """Return what is shown of observations."""
        mean, deviation, _ = self.observation.on(observation)
        seen = (observation - mean) / deviation if self.observation.known else torch.zeros_like(observation)
        return pixels_in_bounds(seen.clamp(-LARGEST_INPUT, LARGEST_INPUT), observation, self.pictures)

    def done(self, action: Float[Tensor, "*N A"]) -> Float[Tensor, "*N A"]:
        """Return what was done where an action was asked for: the environment clips them."""
        return action if self.discrete else action.clamp(-1.0, 1.0)

    def described(self) -> tuple[Part, ...]:
        """Return the parts, told as plain data."""
        seen, limit = self.observation, LARGEST_INPUT
        mean, divisor = (self.reward.mean, self.reward.deviation) if self.center_rewards else (None, self.reward.size)
        return (
            Part(of="observation", size=len(seen.mean), mean=seen.mean, divisor=seen.deviation, limit=limit),
            Part(of="action", size=self.action_size, limit=None if self.discrete else 1.0),
            Part(of="reward", size=1, mean=mean, divisor=divisor, limit=limit),
            Part(of="ended", size=1),
        )

    def key(self) -> Hashable:
        """Return what decides which operations a call takes."""
        return self, self.observation.known

    def refresh(self) -> None:
        """Bring what calls use on a device up to date."""
        self.observation.refresh()
        self.reward.refresh()

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
