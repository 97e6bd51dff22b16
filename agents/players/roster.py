"""Reference players: what can be had on bandits and tabular MDPs by methods that know the prior, without training.

Each is a `MetaAgent` that is never trained: `start` gives a learner whose belief about M tasks grows with every
episode. They say how far an agent that has learned to learn can come on the same tasks. The rules stand in
bandit.py and mdp.py; here are the two ends, `random`, which takes any action, and the ceiling of
`clairvoyant`, which is told the task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from metarl.agents.players.bandit import BanditModel, bandit_players
from metarl.agents.players.mdp import MdpModel, mdp_players, true_mdps
from metarl.errors import UserError, nearest
from metarl.seeding import Streams
from metarl.types import BatchEnv, Learner, Metrics, Policy, SampleTasks, Tasks, Trajectories

Model = BanditModel | MdpModel
"""What players know of a family before the first episode."""


@dataclass(frozen=True)
class RandomLearner:
    """Takes any of A actions, and learns nothing; it is its own policy."""

    actions: int

    @property
    def policy(self) -> Policy:
        """The policy."""
        return self

    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Return any action, one-hot."""
        action = torch.randint(self.actions, (len(observation),), generator=generator, device=generator.device)
        return one_hot(action, self.actions).to(observation)

    def learn(self, experience: Trajectories) -> Learner:
        """Return the learner as it is."""
        return self


@dataclass(frozen=True, kw_only=True)
class PlayerConfig:
    """A player's settings."""

    trial: int
    """Episodes of a trial, n."""
    episodes: int = 1
    """Episodes of a task between two moments of learning, K."""


Begin = Callable[[Tasks], Learner]
"""Tasks -> a learner that has not met them yet."""


class Player:
    """A reference player (see `metarl.types.MetaAgent`), made by `make_player`."""

    pools = True

    def __init__(self, name: str, config: PlayerConfig, begin: Begin) -> None:
        self.name = name
        self.config = config
        self.trial = config.trial
        self._begin = begin

    def start(self, tasks: Tasks) -> Learner:
        """Return the learner of M new tasks."""
        return self._begin(tasks)

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        """Refuse: a player learns from nothing but the tasks it meets."""
        raise UserError(f"The player '{self.name}' is never trained. Let it play: metarl play.")

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is nothing that training could have changed."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Accept nothing."""
        if state:
            raise ValueError(f"got {sorted(state)} for the player '{self.name}', which has no state")


def make_player(name: str, model: Model, trial: int) -> Player:
    """Return a player for trials of so many episodes.

    Raises:
        UserError: it does not exist or does not play this; lists those that do.
    """
    known = players(model, trial)
    if name not in known:
        raise UserError(f"No player '{name}' for trials of {trial} episodes here.{nearest(name, known)}")
    return Player(name, PlayerConfig(trial=trial), known[name])


def players(model: Model, trial: int) -> dict[str, Begin]:
    """Return how each player begins that plays such trials, by name."""
    found: dict[str, Begin] = {"random": lambda tasks: RandomLearner(_actions(model))}
    return found | (bandit_players(model, trial) if isinstance(model, BanditModel) else mdp_players(model))


def _actions(model: Model) -> int:
    return model.arms if isinstance(model, BanditModel) else model.actions


def ceiling(model: Model, tasks: Tasks) -> Float[Tensor, " M"]:
    """Return the expected return of an episode for one who is told the task: no player's is higher."""
    if isinstance(model, BanditModel):
        return tasks["mean"].max(1).values
    return true_mdps(model, tasks).plan(model.horizon)[1][:, 0]


def expected_ceiling(model: Model, trial: int) -> float | None:
    """Return the mean of the ceiling over all tasks, for a trial; None where there is no formula for it."""
    if isinstance(model, BanditModel) and model.means == "uniform":
        return trial * model.arms / (model.arms + 1)
    return None
