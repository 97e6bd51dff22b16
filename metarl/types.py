"""Shared types: what flows between environments, agents and evaluation.

One alphabet of shape letters serves the whole project:

    M tasks   K episodes of a task   T steps of an episode   B parallel worlds (B = M*K, task-major)
    O observation size   A action size   P task-parameter features
    N ways   S support items   Q query items (few-shot)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.seeding import Streams

Params = dict[str, Tensor]
"""Parameters of a functional network: name -> tensor, optionally with a leading task axis M."""

Record = dict[str, float | list[float]]
"""One task as plain data: parameter name -> number, or list of numbers for a vector parameter."""

Metrics = dict[str, float]
"""Logged figures: glossary tag -> number."""


@dataclass(frozen=True)
class Tasks:
    """M tasks of one family.

    Attributes:
        family: full family name with its variant, e.g. `half-cheetah-vel@maml17`.
        values: parameter name -> float64 tensor, [M] for a scalar and [M, D] for a vector parameter.
    """

    family: str
    values: Mapping[str, Tensor]

    def __len__(self) -> int:
        return next(iter(self.values.values())).shape[0]

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]

    def select(self, index: Int[Tensor, " N"] | Sequence[int]) -> Tasks:
        """Return the tasks at `index`, in that order."""
        rows = torch.as_tensor(index, dtype=torch.long)
        return Tasks(self.family, {k: v[rows] for k, v in self.values.items()})

    def to(self, device: torch.device) -> Tasks:
        """Return the tasks with all tensors on `device`."""
        return Tasks(self.family, {k: v.to(device) for k, v in self.values.items()})

    def repeat(self, episodes: int) -> Tasks:
        """Return every task `episodes` times in a row: M tasks -> M*K worlds, task-major."""
        return Tasks(self.family, {k: v.repeat_interleave(episodes, 0) for k, v in self.values.items()})

    def records(self) -> list[Record]:
        """Return the tasks as plain records, printable and saveable."""
        columns = {k: v.tolist() for k, v in self.values.items()}
        return [{k: column[i] for k, column in columns.items()} for i in range(len(self))]


@dataclass(frozen=True)
class Step:
    """What B worlds return for one action.

    Worlds that had ended before the action do not move: reward 0, their last observation again, and
    `terminated` / `truncated` false (each is true only in the step in which the episode ends).

    Attributes:
        observation: observation after the step, the final one included (there is no autoreset).
        reward: sum of the reward terms.
        terminated: the task itself ended the episode (a terminal state).
        truncated: the time limit, or a failed simulation, ended the episode.
        terms: reward by name.
        success: the task's goal is met after the step (false in worlds that had ended); None where the family has
            no such goal.
    """

    observation: Float[Tensor, "B O"]
    reward: Float[Tensor, " B"]
    terminated: Bool[Tensor, " B"]
    truncated: Bool[Tensor, " B"]
    terms: Mapping[str, Float[Tensor, " B"]]
    success: Bool[Tensor, " B"] | None = None


@runtime_checkable
class BatchEnv(Protocol):
    """B parallel worlds of one family, each with its own task. No world ever resets by itself.

    Observations, rewards and flags are all on one device, which may be a GPU; tasks are given on the CPU.
    """

    family_name: str
    num_worlds: int
    horizon: int
    observation_size: int
    action_size: int

    @property
    def failures(self) -> int:
        """Simulations that became invalid (NaN or solver error) since construction; each ended its own episode only."""
        ...

    def set_tasks(self, tasks: Tasks) -> None:
        """Give world i the task i; `len(tasks)` must be `num_worlds`. Takes effect at the next reset."""
        ...

    def reset(self, generator: torch.Generator) -> Float[Tensor, "B O"]:
        """Start a new episode in every world and return the first observations."""
        ...

    def step(self, action: Float[Tensor, "B A"]) -> Step:
        """Advance every world whose episode has not ended. Actions outside the bounds are clipped to them."""
        ...


@runtime_checkable
class Returning(Protocol):
    """What can go back to where it was between two episodes, since an engine's buffers were too small for the later."""

    def keep(self) -> Any:
        """Return what `go_back` needs; None where nothing will have to be played again."""
        ...

    def go_back(self, kept: Any) -> None:
        """Go back to where it was when it was kept."""
        ...


@runtime_checkable
class Outgrowing(Returning, Protocol):
    """Worlds (`BatchEnv`) on an engine whose buffers may turn out too small for what happens in an episode."""

    def outgrown(self) -> bool:
        """Tell whether that was so since the last reset; then there is more room, and it is to be played again."""
        ...


@runtime_checkable
class SampleTasks(Protocol):
    """Draws tasks of one family."""

    def __call__(self, count: int, split: str, generator: torch.Generator) -> Tasks:
        """Return `count` tasks of the split `train`, `test` or `ood`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Where a picture is among the numbers of an observation.

    Attributes:
        first: number of its first pixel.
        shape: of the array that the numbers are, rows first.
        channels: axes of `shape` that are channels, () where it is grey; the other two are height and width.
        largest: the value of a full pixel, such as 255; the smallest is 0.
    """

    first: int
    shape: tuple[int, ...]
    channels: tuple[int, ...]
    largest: float

    @property
    def size(self) -> int:
        """How many numbers it is."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class EnvSpec:
    """What an agent needs to know of a family to build its networks.

    Attributes:
        family: full family name with its variant.
        observation_size: O.
        action_size: A.
        horizon: T, steps of the longest episode.
        feature_size: P.
        features: tasks -> task parameters scaled to [-1, 1], float64 [M, P] (what an oracle is told).
        discrete: whether an action is made of choices, each given one-hot, side by side.
        choices: alternatives of each of these, A in all; (A,), one choice, where none are named.
        pictures: which numbers of an observation are pixels.
        dynamics_vary: whether what follows an action differs between tasks, not only what it is rewarded with.
        train_tasks: how many different tasks there are to train on; None where there is no end of them.
        optimal_action: observations, one task for each -> the best actions of one who knows these, as agents give them
            (numbers in -1..1 of the bounds, or one-hot); None where the family does not say it.
    """

    family: str
    observation_size: int
    action_size: int
    horizon: int
    feature_size: int
    features: Callable[[Tasks], Float[Tensor, "M P"]]
    discrete: bool = False
    choices: tuple[int, ...] = ()
    pictures: tuple[Picture, ...] = ()
    dynamics_vary: bool = True
    train_tasks: int | None = None
    optimal_action: Callable[[Float[Tensor, "N O"], Tasks], Float[Tensor, "N A"]] | None = None

    def __post_init__(self) -> None:
        if self.discrete and not self.choices:
            object.__setattr__(self, "choices", (self.action_size,))


@runtime_checkable
class Policy(Protocol):
    """What acts in M*K worlds during one collection."""

    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Return an action per world, unclipped."""
        ...


@runtime_checkable
class MemoryPolicy(Policy, Protocol):
    """A policy that remembers, in every world, what it met there in the episodes of a trial."""

    def begin_episode(self) -> None:
        """Take note that the next observation is the first one of an episode, in every world."""
        ...

    def see(self, reward: Float[Tensor, " B"], ended: Bool[Tensor, " B"]) -> None:
        """Take in what followed from the last action.

        Args:
            reward: of the step.
            ended: whose episode ended with the step; these worlds wait, and nothing of them is to be remembered,
                until the next episode begins.
        """
        ...


@runtime_checkable
class SteadyPolicy(Policy, Protocol):
    """A policy that acts by the same operations at every step, so that a step can be captured (metarl/launches.py)."""

    def key(self, device: torch.device) -> Hashable | None:
        """Return what tells its operations in worlds on a device from those of other policies.

        Policies with the same key differ in numbers only. None: the operations are not the same at every step.
        """
        ...

    def twin(self, observation: Float[Tensor, "B O"]) -> SteadyPolicy:
        """Return a policy with the same key and numbers of its own, on the observation's device, that stay in place."""
        ...

    def take_over(self, other: Any) -> None:
        """Copy the numbers of another policy with the same key, those that it remembers included."""
        ...


@dataclass(frozen=True)
class Trajectories:
    """Complete episodes of M tasks, K episodes each, padded to T steps.

    Attributes:
        observations: observation before each step, zero in the padding.
        actions: action as the policy gave it (the environment clips), zero in the padding.
        rewards: zero in the padding.
        mask: 1.0 for real steps, 0.0 for padding.
        terminated: whether the episode ended in a terminal state (else it was truncated).
        final_observations: observation after the last real step.
        tasks: the M tasks.
        terms: mean over real steps of every reward term.
        success: whether the goal was met at any step of the episode; None where the family has no such goal.
        seconds: wall-clock time of the collection.
        policy_seconds: the part of it spent in the policy.
    """

    observations: Float[Tensor, "M K T O"]
    actions: Float[Tensor, "M K T A"]
    rewards: Float[Tensor, "M K T"]
    mask: Float[Tensor, "M K T"]
    terminated: Bool[Tensor, "M K"]
    final_observations: Float[Tensor, "M K O"]
    tasks: Tasks
    terms: Mapping[str, float] = field(default_factory=dict)
    success: Bool[Tensor, "M K"] | None = None
    seconds: float = 0.0
    policy_seconds: float = 0.0

    def to(self, device: torch.device) -> Trajectories:
        """Return the trajectories with all tensors on `device`."""
        return replace(
            self,
            observations=self.observations.to(device),
            actions=self.actions.to(device),
            rewards=self.rewards.to(device),
            mask=self.mask.to(device),
            terminated=self.terminated.to(device),
            final_observations=self.final_observations.to(device),
            success=None if self.success is None else self.success.to(device),
        )

    @property
    def returns(self) -> Float[Tensor, "M K"]:
        """Undiscounted return of every episode."""
        return self.rewards.sum(-1)

    @property
    def steps(self) -> int:
        """Real environment steps."""
        return int(self.mask.sum().item())

    @property
    def success_rate(self) -> dict[str, float]:
        """Part of the episodes that met the goal as the metric `episode/success`; none where there is no goal."""
        return {} if self.success is None else {"episode/success": float(self.success.double().mean())}


@runtime_checkable
class Learner(Protocol):
    """An agent in the middle of learning M new tasks; a value, never changed in place."""

    @property
    def policy(self) -> Policy:
        """The policy at this point of adaptation."""
        ...

    def learn(self, experience: Trajectories) -> Learner:
        """Return the learner after one more adaptation step on `experience` of its M tasks."""
        ...


@runtime_checkable
class MetaAgent(Protocol):
    """A meta-learner: trained over a family, then adapted to new tasks.

    Attributes:
        name: its name.
        config: its settings.
        trial: episodes that it plays in a row with one task in each world while it is trained, n: 1 for an agent that
            has no memory of its own.
        pools: whether it learns from all K parallel episodes of a task together, so that one step of learning is K
            episodes of experience; if not, every world is a trial of its own, and a step is one episode.

    One that is trained in phases may also have `begun`: whether what acts at test is being trained already. It is not
    validated before (metarl/evaluation/validation.py).
    """

    name: str
    config: Any
    trial: int
    pools: bool

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        """Run one meta-iteration in place and return its metrics."""
        ...

    def start(self, tasks: Tasks) -> Learner:
        """Return a fresh learner for M new tasks."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training has changed (tensors and plain data)."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()` exactly; raise ValueError where it does not fit."""
        ...
