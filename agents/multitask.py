"""One policy for all tasks, trained by TRPO (Schulman et al. 2015): the reference agents of an adaptation curve.

* `multitask`: does not see the task; fine-tuned at test by policy gradients (the "pretrained" row of the literature).
* `oracle`: sees the task's parameters in its observation: what could be had if the task were known.
* `random`: the same network, never trained, fine-tuned at test: what adaptation can do with no meta-learning.

    max_θ  mean_i  S_i(θ; D_i)   s.t.   mean_i  KL(π_old ‖ π_θ) <= δ

Advantages come from a baseline fitted per task, and observations are scaled (metarl/learning/scaling.py), as for
MAML-TRPO, so that the three differ in what they learn only. What an oracle is told is scaled to -1..1 by the family.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metarl.config import MOST_ITERATIONS, MOST_STEPS, check
from metarl.learning import figures
from metarl.learning.chunks import TasksAtATime, tasks_of_a_test
from metarl.learning.experience import Batch, first_episodes, prepare, spread, surrogate
from metarl.learning.finetune import (
    GradientLearner,
    TaskPolicy,
    check_observation,
    memory_of_gradients,
    policy_for,
    tell,
    unused_by_policy,
    warm_up,
    weights_of_policy,
)
from metarl.learning.inner import task_chunks
from metarl.learning.outer import outer_step
from metarl.learning.rollout import collect
from metarl.learning.scaling import Scaler, shown
from metarl.learning.trust_region import PolicyFisher, mean_product
from metarl.nets.pictures import with_pictures
from metarl.nets.policy import Activation, load_params, stack
from metarl.ranks import ALONE, Ranks
from metarl.seeding import Streams
from metarl.types import BatchEnv, EnvSpec, Metrics, Params, SampleTasks, Tasks


@dataclass(frozen=True, kw_only=True)
class MultitaskConfig:
    """Defaults match MAML-TRPO's, so that runs compare."""

    iterations: int = 400
    """Updates."""
    tasks: int = 20
    """Tasks of a batch, M."""
    episodes: int = 20
    """Episodes of a task, K."""
    inner_rate: float = 0.1
    """Step size α of the fine-tuning at test."""
    later_rate: float = 0.5
    """At test, factor on α after the first step."""
    discount: float = 0.99
    """γ per step."""
    trace: float = 0.97
    """λ of the advantages."""
    scale_observations: bool = True
    """Show the networks observations in standard deviations from their mean so far, so that units do not matter."""
    encode_pictures: bool = True
    """Show the networks of pictures among the observations what a small convolutional encoder, trained with them, makes
    of their pixels; if not, pixels are numbers as others."""
    hidden: tuple[int, ...] = (100, 100)
    """Hidden layers of the policy."""
    activation: Activation = "relu"
    """Activation of the hidden layers."""
    layer_norm: bool = False
    """Normalise the hidden layers."""
    initial_std: float = 1.0
    """Initial standard deviation of the actions, in units of half the action range."""
    output_gain: float = 0.1
    """Scale of the last layer's initial weights: small, so that training starts near zero actions."""
    max_kl: float = 0.01
    """Trust region δ, nats."""
    cg_iterations: int = 10
    """Conjugate-gradient products of an update."""
    damping: float = 1e-5
    """Added to the Fisher matrix's diagonal."""
    fisher_fraction: float = 0.25
    """Fraction of each task's episodes in the Fisher products."""
    chunk_steps: int = 8192
    """Environment steps computed at a time on a CPU (whole tasks, at least one)."""
    gpu_memory: int = 0
    """MB that what is computed at a time may take on a GPU (whole tasks, at least one); 0: a quarter of its memory."""

    @property
    def worlds(self) -> int:
        """Parallel worlds of a training iteration, B."""
        return self.tasks * self.episodes

    def network_weights(self, spec: EnvSpec) -> int:
        """Return the weights of the network for a family."""
        return weights_of_policy(self, spec)

    def memory_needed(self, spec: EnvSpec) -> dict[str, int]:
        """Reckon what a training needs beside the worlds, bytes: what asks for it -> how much."""
        return memory_of_gradients(self, spec, collections=1, played=self.worlds * spec.horizon)

    def unused(self, name: str, spec: EnvSpec, device: torch.device) -> dict[str, str]:
        """Return settings that change nothing for an agent of this name and a family -> what they would need."""
        unused = unused_by_policy(self, spec, device)
        if name == "oracle":
            unused |= dict.fromkeys(("inner_rate", "later_rate"), "an agent that adapts, multitask or maml-trpo")
        return unused

    def __post_init__(self) -> None:
        check(self, at_least={"gpu_memory": 0}, at_most={"iterations": MOST_ITERATIONS, "cg_iterations": MOST_STEPS})
        check(self, at_least={"iterations": 0, "tasks": 1, "episodes": 1, "cg_iterations": 1, "chunk_steps": 1})
        check(self, at_least={"inner_rate": 0.0, "later_rate": 0.0, "damping": 0.0, "output_gain": 0.0})
        check(self, above={"max_kl": 0.0, "initial_std": 0.0, "fisher_fraction": 0.0})
        check(self, at_most={"discount": 1.0, "trace": 1.0, "fisher_fraction": 1.0})
        check(self, at_least={"discount": 0.0, "trace": 0.0})


class Multitask:
    """The agent.

    Args:
        config: its settings.
        spec: the family's sizes and task features.
        streams: `init` draws the initial parameters.
        device: where the network and the update live.
        ranks: the processes that train it together: means over tasks are over the tasks of all of them.
        name: `multitask`, `oracle` or `random`.
    """

    trial = 1
    pools = True

    def __init__(
        self,
        config: MultitaskConfig,
        spec: EnvSpec,
        streams: Streams,
        device: torch.device,
        ranks: Ranks = ALONE,
        *,
        name: str,
    ) -> None:
        self.name = name
        spec = with_pictures(spec, config.encode_pictures)
        check_observation(name, spec)
        self.config = config
        self.device = device
        self.ranks = ranks
        self.tasks = ranks.share(config.tasks)
        self.features = spec.features if name == "oracle" else None
        told = spec.feature_size if self.features else 0
        self.policy = policy_for(config, spec, told=told)
        self.scaler = Scaler(spec, on=config.scale_observations)
        self.params = {name: value.to(device) for name, value in self.policy.init(streams["init"]).items()}
        self.at_a_time = TasksAtATime(config.chunk_steps, config.gpu_memory)

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        """Collect and take one trust-region step."""
        config = self.config
        tasks = sample_tasks(config.tasks, "train", streams["tasks"]).select(self.ranks.rows(config.tasks))
        params = stack(self.params, self.tasks)
        warm = warm_up(self, env, sample_tasks, streams["warm-up"])
        told, scale = self._told(tasks), self.scaler.scale
        actor = TaskPolicy(self.policy, params, self.tasks, told, self.ranks, scale)
        episodes = collect(env, actor, tasks, config.episodes, streams["rollout"], ranks=self.ranks).to(self.device)

        started = time.perf_counter()
        seen = shown(scale, episodes)
        if told is not None:
            seen = tell(seen, told)
        batch, explained = prepare(seen, self.policy, params, discount=config.discount, trace=config.trace)
        update = self._update(batch)
        self.scaler.update([episodes], self.ranks)
        mean_return = float(episodes.returns.mean())
        return {
            "return/pre": mean_return,
            "return/post": mean_return,
            **update,
            "update/explained_variance": explained,
            **spread(self.policy, stack(self.params, self.tasks), batch),
            **figures.of_episodes([*warm, episodes]),
            "time/update": time.perf_counter() - started,
        }

    def _update(self, batch: Batch) -> Metrics:
        """Take the outer step on parameters that nothing adapts."""
        config = self.config
        chunk = self.at_a_time(batch, self.params, surrogate(self.policy))
        old = stack(self.params, self.tasks)

        def fisher() -> Callable[[Params], Params]:
            part = first_episodes(batch, max(1, round(config.fisher_fraction * config.episodes)))
            fishers = [
                PolicyFisher(self.policy, params, seen["observations"].flatten(1, 2), seen["weights"].flatten(1))
                for params, seen in task_chunks((old, part), chunk)
            ]
            return mean_product([(len(fisher), fisher) for fisher in fishers], self.ranks)

        self.params, metrics = outer_step(
            self.params,
            lambda params, before: params,
            [],
            batch,
            old,
            policy=self.policy,
            fisher=fisher,
            max_kl=config.max_kl,
            iterations=config.cg_iterations,
            damping=config.damping,
            chunk=chunk,
            ranks=self.ranks,
        )
        return metrics

    def _told(self, tasks: Tasks) -> Tensor | None:
        return None if self.features is None else self.features(tasks).float()

    def start(self, tasks: Tasks) -> GradientLearner:
        """Return the learner that fine-tunes on M new tasks; the oracle knows its tasks and stays as it is."""
        rate = 0.0 if self.name == "oracle" else self.config.inner_rate
        return GradientLearner(
            network=self.policy,
            params=stack(self.params, len(tasks)),
            rates=dict.fromkeys(self.params, rate),
            later=self.config.later_rate,
            estimator="lvc",
            discount=self.config.discount,
            trace=self.config.trace,
            features=self._told(tasks),
            scale=self.scaler.scale,
            chunk=tasks_of_a_test(self.device),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the parameters, and the scale of observations."""
        return {"params": {name: value.cpu() for name, value in self.params.items()}, **self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`; raise ValueError where it does not fit."""
        self.params = load_params(self.params, state["params"])
        self.scaler.load_state_dict(state)


multitask = partial(Multitask, name="multitask")
oracle = partial(Multitask, name="oracle")
random = partial(Multitask, name="random")
