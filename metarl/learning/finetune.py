"""Acting with one policy per task, and adapting it at test time by policy-gradient steps.

Every agent whose adaptation is a gradient step is a `GradientLearner` once trained: MAML, a multi-task policy that is
fine-tuned, an untrained one. They differ in the parameters they start from and in the rates.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from metarl import memory
from metarl.errors import UserError
from metarl.learning.description import Description, GradientSteps, Part
from metarl.learning.experience import Estimator, StochasticPolicy, inner_loss, prepare
from metarl.learning.inner import Rates, adapt, over_tasks
from metarl.learning.rollout import collect
from metarl.learning.scaling import Scale, Scaler, shown
from metarl.nets.layers import of_mlp
from metarl.nets.pictures import FEATURES, Encoder, Seeing
from metarl.nets.policy import MLP, GaussianPolicy, make_policy
from metarl.ranks import ALONE, Ranks
from metarl.types import BatchEnv, EnvSpec, Params, SampleTasks, Tasks, Trajectories

MOST_OBSERVED = 4096
"""Numbers of an observation: the baseline beside a policy solves for a weight of each and of its square."""


def check_observation(agent: str, spec: EnvSpec) -> None:
    """Refuse observations that are too large for an agent that takes gradient steps, as pixels may be.

    Args:
        agent: its name.
        spec: the family's sizes, and the pictures that have an encoder.
    """
    weighed = Encoder(spec.observation_size, spec.pictures).coarse_outputs
    if weighed > MOST_OBSERVED:
        raise UserError(
            f"{agent} got observations of {weighed} numbers from {spec.family}, beside pictures that are encoded. "
            f"Allowed are {MOST_OBSERVED}, since its baseline weighs each: show it fewer (of a picture every fourth "
            "pixel, in a gymnasium.wrappers.TransformObservation), give pictures as such (a Box of unsigned bytes from "
            "0 to 255, and no --no-encode-pictures), or train rl2."
        )


def policy_for(config: Any, spec: EnvSpec, *, told: int = 0) -> StochasticPolicy:
    """Return the policy of an agent that takes gradient steps; pictures have an encoder before its network.

    Args:
        config: the agent's, with the fields of a policy.
        spec: the family's sizes.
        told: numbers that stand behind every observation.
    """
    encoder = Encoder(spec.observation_size + told, spec.pictures)
    network = MLP(
        inputs=encoder.outputs,
        hidden=config.hidden,
        outputs=spec.action_size,
        activation=config.activation,
        layer_norm=config.layer_norm,
        output_gain=config.output_gain,
    )
    seeing = Seeing(encoder=encoder, network=network) if spec.pictures else network
    return make_policy(seeing, choices=spec.choices, initial_std=config.initial_std)


def weights_of_policy(config: Any, spec: EnvSpec) -> int:
    """Return the weights of the network for a family; pictures have an encoder before it.

    Args:
        config: the agent's, with the fields of a policy.
        spec: the family's sizes.
    """
    inputs = spec.observation_size + spec.feature_size
    encoder = len(spec.pictures) * FEATURES * spec.observation_size
    return encoder + memory.layers(inputs, config.hidden, spec.action_size)


def memory_of_gradients(config: Any, spec: EnvSpec, *, collections: int, played: int) -> dict[str, int]:
    """Reckon what a training by gradients of collected episodes needs beside the worlds, bytes: what asks for it -> it.

    Args:
        config: the agent's, with the fields of a policy.
        spec: the family's sizes.
        collections: of an iteration.
        played: environment steps that are kept as they were played.
    """
    update = memory.policy_gradients(
        steps=config.worlds * spec.horizon,
        collections=collections,
        at_a_time=max(config.chunk_steps, config.episodes * spec.horizon),
        hidden=config.hidden,
    )
    kept = memory.episodes(played, spec.observation_size, spec.action_size)
    weights = memory.weights_of_tasks(weights_of_policy(config, spec), config.tasks, collections)
    return {"--tasks, --episodes, --hidden or --horizon": kept + update, "--hidden or --tasks": weights}


def unused_by_policy(config: Any, spec: EnvSpec, device: torch.device) -> dict[str, str]:
    """Return settings of an agent that adapts by gradients which change nothing -> what they would need.

    Args:
        config: the agent's, with the fields of a policy.
        spec: the family's sizes.
        device: where it computes.
    """
    unused = {"gpu_memory": "--device cuda"} if device.type == "cpu" else {"chunk_steps": "--device cpu"}
    if spec.discrete:
        unused["initial_std"] = "a family whose actions are numbers"
    if not spec.pictures:
        unused["encode_pictures"] = "a family with pictures among its observations"
    if not config.hidden:
        unused |= dict.fromkeys(("activation", "layer_norm"), "hidden layers")
    return unused


@dataclass(frozen=True)
class TaskPolicy:
    """Samples actions in M*K worlds, each task with its own parameters, on the device where the worlds are.

    Attributes:
        policy: the network.
        params: with leading axis M.
        tasks: M.
        features: appended to every observation of a task, [M, P] (what an oracle is told), or None.
        ranks: which of them have a share of the tasks each, as these M.
        scale: how observations are shown to the network; None: as they are.
    """

    policy: StochasticPolicy
    params: Params
    tasks: int
    features: Float[Tensor, "M P"] | None = None
    ranks: Ranks = ALONE
    scale: Scale | None = None
    _there: dict[torch.device, tuple[Params, Tensor | None]] = field(default_factory=dict, repr=False, compare=False)

    def on(self, device: torch.device) -> tuple[Params, Tensor | None]:
        """Return parameters and features on a device."""
        if device not in self._there:
            features = None if self.features is None else self.features.to(device)
            self._there[device] = {name: value.to(device) for name, value in self.params.items()}, features
        return self._there[device]

    def act(self, observation: Float[Tensor, "B O"], generator: torch.Generator) -> Float[Tensor, "B A"]:
        """Sample an action in every world, one-hot where they are discrete."""
        by_task = observation.unflatten(0, (self.tasks, -1))
        if self.scale is not None:
            by_task = self.scale(by_task)
        params, features = self.on(observation.device)
        if features is not None:
            by_task = with_features(by_task, features)
        return self.policy(params, by_task).sample(generator, self.ranks).flatten(0, 1)

    # -- a step that is captured (see `metarl.types.SteadyPolicy`) ----------------------------------------------------

    def key(self, device: torch.device) -> Hashable:
        """Return what tells its operations."""
        shapes = tuple((name, value.shape) for name, value in self.params.items())
        told = None if self.features is None else self.features.shape
        scale = None if self.scale is None else (self.scale.mean.shape, self.scale.pictures)
        return type(self), repr(self.policy), shapes, self.tasks, told, self.ranks, scale

    def twin(self, observation: Float[Tensor, "B O"]) -> TaskPolicy:
        """Return a policy with numbers of its own."""
        device = observation.device
        return TaskPolicy(
            self.policy,
            {name: value.to(device, copy=True) for name, value in self.params.items()},
            self.tasks,
            None if self.features is None else self.features.to(device, copy=True),
            self.ranks,
            None if self.scale is None else self.scale.twin(observation),
        )

    def take_over(self, other: TaskPolicy) -> None:
        """Copy the numbers of another policy into those of a twin."""
        for name, value in other.params.items():
            self.params[name].copy_(value)
        if self.features is not None and other.features is not None:
            self.features.copy_(other.features)
        if self.scale is not None and other.scale is not None:
            self.scale.take_over(other.scale)


def with_features(observations: Float[Tensor, "M *N O"], features: Float[Tensor, "M P"]) -> Float[Tensor, "M *N Q"]:
    """Append the task's features to each of its observations."""
    shaped = features.view(features.shape[0], *([1] * (observations.dim() - 2)), features.shape[1])
    return torch.cat((observations, shaped.expand(*observations.shape[:-1], -1).to(observations)), dim=-1)


def tell(experience: Trajectories, features: Float[Tensor, "M P"]) -> Trajectories:
    """Append the task's features to every observation of the episodes."""
    return replace(
        experience,
        observations=with_features(experience.observations, features),
        final_observations=with_features(experience.final_observations, features),
    )


@dataclass(frozen=True, kw_only=True)
class GradientLearner:
    """M copies of a policy, each adapting to its task by policy-gradient steps.

    Attributes:
        network: the policy network.
        params: with leading axis M.
        rates: α of every parameter, for the first step.
        later: factor on α for every step after the first.
        estimator: of the inner loss (its gradient is the same for all; kept with the agent's).
        discount, trace: γ and λ of the advantages.
        features: what an oracle is told of its tasks, [M, P], or None.
        scale: how observations are shown to the network; None: as they are. One that knows nothing yet is replaced by
            that of the first experience.
        steps: adaptation steps taken so far.
        chunk: tasks adapted at a time; 0 for all.
    """

    network: StochasticPolicy
    params: Params
    rates: Rates
    later: float
    estimator: Estimator
    discount: float
    trace: float
    features: Float[Tensor, "M P"] | None = None
    scale: Scale | None = None
    steps: int = 0
    chunk: int = 0

    @property
    def policy(self) -> TaskPolicy:
        """The policy at this point of adaptation."""
        tasks = next(iter(self.params.values())).shape[0]
        return TaskPolicy(self.network, self.params, tasks, self.features, scale=self.scale)

    def learn(self, experience: Trajectories) -> GradientLearner:
        """Return the learner after one gradient step on the K episodes of each task."""
        device = next(iter(self.params.values())).device
        scale = self.scale
        if scale is not None and not scale.known:
            scale = scale.met(experience)
        experience = shown(scale, experience.to(device))
        if self.features is not None:
            experience = tell(experience, self.features)
        batch, _ = prepare(experience, self.network, self.params, discount=self.discount, trace=self.trace)
        loss = inner_loss(self.network, self.estimator)
        factor = 1.0 if self.steps == 0 else self.later
        rates = {name: rate * factor for name, rate in self.rates.items()}
        with torch.no_grad():
            adapted = over_tasks(
                lambda p, b: adapt(loss, p, b, rates, first_order=True), self.params, batch, chunk=self.chunk
            )
        return replace(self, params=adapted, scale=scale, steps=self.steps + 1)

    def describe(self, spec: EnvSpec) -> Description:
        """Return the policy of the first task, told as plain data (see `metarl.learning.description`)."""
        params = {name: value[0].detach() for name, value in self.params.items()}
        seen = Part(of="observation", size=spec.observation_size)
        if self.scale is not None:
            seen = replace(seen, **self.scale.described())
        told = () if self.features is None else (Part(of="task", size=spec.feature_size),)
        gaussian = self.network if isinstance(self.network, GaussianPolicy) else None
        network = self.network.network
        numbers = {float(rate) for rate in self.rates.values() if not isinstance(rate, Tensor)}
        own = {name: rate.detach() for name, rate in self.rates.items() if isinstance(rate, Tensor)}
        steps = GradientSteps(
            rate=None if own else numbers.pop(),
            layers=of_mlp(network, own) if own else (),
            log_std=own.get("log_std"),
            later=self.later,
            discount=self.discount,
            trace=self.trace,
        )
        return Description(
            inputs=(seen, *told),
            layers=of_mlp(network, params),
            log_std=params.get("log_std"),
            least_log_std=None if gaussian is None else math.log(gaussian.minimum_std),
            # One that is told its task has nothing to find out.
            steps=None if told else steps,
        )


@runtime_checkable
class GradientAgent(Protocol):
    """An agent whose learners are `GradientLearner`s, as it is trained on M tasks of each of several ranks."""

    config: Any
    ranks: Ranks
    scaler: Scaler

    def start(self, tasks: Tasks) -> GradientLearner:
        """Return a fresh learner for M new tasks."""
        ...


def warm_up(
    agent: GradientAgent, env: BatchEnv, sample_tasks: SampleTasks, generator: torch.Generator
) -> list[Trajectories]:
    """Play some episodes that nothing is learned from but the scale of observations, where nothing was met yet.

    They are played as the agent begins, which is shown nothing: what is done in them does not hang on the unit.

    Args:
        agent: whose first iteration begins; `config` has `tasks` and `episodes`.
        env: its worlds.
        sample_tasks: draws the tasks.
        generator: draws tasks, starts and the policy's noise.

    Returns:
        What was played, to be counted; nothing where the scale is known, or off.
    """
    if agent.scaler.known:
        return []
    count, ranks = agent.config.tasks, agent.ranks
    tasks = sample_tasks(count, "train", generator).select(ranks.rows(count))
    policy = replace(agent.start(tasks).policy, ranks=ranks)
    played = [collect(env, policy, tasks, agent.config.episodes, generator, ranks=ranks)]
    agent.scaler.update(played, ranks)
    return played
