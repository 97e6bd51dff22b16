"""MAML-TRPO: learn an initial policy that one policy-gradient step adapts to a new task.

Finn, Abbeel, Levine 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", algorithm 3:

    θ'_i = θ - α ∇_θ L_i(θ; D_i)                     adapt to task i on K episodes of π_θ
    max_θ  mean_i  S_i(θ'_i; D'_i)                   surrogate on K episodes of π_θ'_i
    s.t.   mean_i  KL(π_θ'_i,old ‖ π_θ'_i(θ)) <= δ   both *after* adaptation, re-adapted for every candidate θ

Deviations from the paper's code, each for a reason: the inner loss is the likelihood ratio (`lvc`) rather than the
log-likelihood, whose Hessian drops a term of the meta-gradient; the Hessian-vector products are exact, not finite
differences; the Fisher matrix is the Gauss-Newton form pulled back through the adaptation,

    F = mean_i  J_iᵀ F_i J_i,   J_i = ∂θ'_i/∂θ = Π_k (1 - α H_ik),

on a fraction of the episodes (`fisher_fraction`); KL and surrogate of the line search use all of them; and observations
are scaled (metarl/learning/scaling.py; `scale_observations`), where the paper's are as they come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from metarl.config import MOST_ITERATIONS, MOST_STEPS, check
from metarl.errors import UserError
from metarl.learning.chunks import TasksAtATime, tasks_of_a_test
from metarl.learning.experience import Batch, Estimator, first_episodes, inner_loss, spread, surrogate
from metarl.learning.finetune import (
    GradientLearner,
    check_observation,
    policy_for,
    unused_by_policy,
    weights_of_policy,
)
from metarl.learning.inner import AdaptationJacobian, Executor, Rates, adapt, task_chunks
from metarl.learning.meta_batch import MOST_INNER_STEPS, memory_of_meta_batches, play_meta_batch
from metarl.learning.outer import outer_step
from metarl.learning.scaling import Scaler
from metarl.learning.trust_region import PolicyFisher, mean_product
from metarl.nets.pictures import with_pictures
from metarl.nets.policy import Activation, load_params, stack
from metarl.ranks import ALONE, Ranks
from metarl.seeding import Streams
from metarl.types import BatchEnv, EnvSpec, Metrics, Params, SampleTasks, Tasks

RATE = "rate/"
"""Prefix of the learned inner rates among the meta-parameters."""


@dataclass(frozen=True, kw_only=True)
class MamlTrpoConfig:
    """Defaults are the 2017 recipe with episodes and tasks for two CPU cores."""

    iterations: int = 800
    """Meta-iterations."""
    tasks: int = 20
    """Tasks of a meta-batch, M (the 2017 recipe: 40; 20 for the point)."""
    episodes: int = 20
    """Episodes of a task before and after each adaptation step, K."""
    inner_steps: int = 1
    """Adaptation steps in training; 0 trains one policy for all tasks by plain TRPO."""
    inner_rate: float = 0.1
    """Inner rate α (0.5 for the point)."""
    learn_rates: bool = False
    """Learn one inner rate per parameter, starting at `inner_rate`."""
    first_order: bool = False
    """Drop the second derivatives of the adaptation."""
    estimator: Estimator = "lvc"
    """Inner loss: what its Hessian keeps of the true meta-gradient."""
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
    executor: Executor = "grouped"
    """How the meta-batch is computed; all give the same numbers."""
    chunk_steps: int = 8192
    """Environment steps computed at a time on a CPU (whole tasks, at least one): bounds memory and stays in cache."""
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
        return memory_of_meta_batches(self, spec)

    def unused(self, name: str, spec: EnvSpec, device: torch.device) -> dict[str, str]:
        """Return settings that change nothing for an agent of this name and a family -> what they would need."""
        unused = unused_by_policy(self, spec, device)
        if self.inner_steps == 0:
            unused |= dict.fromkeys(("first_order", "estimator"), "--inner-steps from 1")
        elif self.first_order:
            unused["estimator"] = "second derivatives, no --first-order"
        return unused

    def __post_init__(self) -> None:
        check(self, at_least={"gpu_memory": 0}, at_most={"iterations": MOST_ITERATIONS})
        check(self, at_most={"inner_steps": MOST_INNER_STEPS, "cg_iterations": MOST_STEPS})
        check(self, at_least={"iterations": 0, "tasks": 1, "episodes": 1, "inner_steps": 0, "cg_iterations": 1})
        check(
            self, at_least={"inner_rate": 0.0, "later_rate": 0.0, "damping": 0.0, "output_gain": 0.0, "chunk_steps": 1}
        )
        check(self, above={"max_kl": 0.0, "initial_std": 0.0, "fisher_fraction": 0.0})
        check(self, at_most={"discount": 1.0, "trace": 1.0, "fisher_fraction": 1.0})
        check(self, at_least={"discount": 0.0, "trace": 0.0})
        if self.learn_rates and self.inner_steps == 0:
            raise UserError("Got learn_rates with inner_steps 0: there is no inner rate to learn. Drop one of them.")


class MamlTrpo:
    """The agent.

    Args:
        config: its settings.
        spec: the family's sizes.
        streams: `init` draws the initial parameters.
        device: where the networks and the update live.
        ranks: the processes that train it together: means over tasks are over the tasks of all of them.
    """

    name = "maml-trpo"
    trial = 1
    pools = True

    def __init__(
        self, config: MamlTrpoConfig, spec: EnvSpec, streams: Streams, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        spec = with_pictures(spec, config.encode_pictures)
        check_observation(self.name, spec)
        self.config = config
        self.device = device
        self.ranks = ranks
        self.tasks = ranks.share(config.tasks)
        self.policy = policy_for(config, spec)
        self.scaler = Scaler(spec, on=config.scale_observations)
        self.meta = self.policy.init(streams["init"])
        if config.learn_rates:
            self.meta |= {RATE + name: torch.full_like(v, config.inner_rate) for name, v in self.meta.items()}
        self.meta = {name: value.to(device) for name, value in self.meta.items()}
        self.loss = inner_loss(self.policy, config.estimator)
        self.at_a_time = TasksAtATime(config.chunk_steps, config.gpu_memory)

    # -- the two levels ---------------------------------------------------------------------------------------------

    def split(self, meta: Params) -> tuple[Params, Rates]:
        """Divide meta-parameters into the policy's and the inner rates."""
        theta = {name: value for name, value in meta.items() if not name.startswith(RATE)}
        if self.config.learn_rates:
            return theta, {name: meta[RATE + name] for name in theta}
        return theta, dict.fromkeys(theta, self.config.inner_rate)

    def adapted(self, meta: Params, before: list[Batch]) -> Params:
        """Compute θ' from θ and the data of every adaptation step, differentiably."""
        theta, rates = self.split(meta)
        for batch in before:
            theta = adapt(self.loss, theta, batch, rates, first_order=self.config.first_order)
        return theta

    def _tasks_at_a_time(self, batch: Batch) -> int:
        """Return how many tasks of a batch are computed at a time."""
        gain, steps = surrogate(self.policy), self.config.inner_steps
        return self.at_a_time(batch, self.meta, lambda meta, data: gain(self.adapted(meta, [data] * steps), data))

    # -- training ---------------------------------------------------------------------------------------------------

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        """Collect, adapt, collect again, and take one trust-region step on the meta-parameters."""
        theta, rates = self.split(self.meta)
        seen = play_meta_batch(self, theta, rates, self._tasks_at_a_time, env, sample_tasks, streams)
        started = time.perf_counter()
        update = self._update(seen.points, seen.batches)
        self.scaler.update(seen.played, self.ranks)
        return {
            **seen.figures(),
            **update,
            **spread(self.policy, seen.points[-1], seen.batches[-1]),
            **self._rate_metrics(),
            "time/update": time.perf_counter() - started,
        }

    def _rate_metrics(self) -> Metrics:
        learned = [value.flatten() for name, value in self.meta.items() if name.startswith(RATE)]
        return {"inner/rate": float(torch.cat(learned).mean())} if learned else {}

    def _update(self, points: list[Params], batches: list[Batch]) -> Metrics:
        """Take the outer step; `points` are θ_0 ... θ_n of every task, `batches` the data collected at each."""
        config = self.config
        self.meta, metrics = outer_step(
            self.meta,
            self.adapted,
            batches[:-1],
            batches[-1],
            points[-1],
            policy=self.policy,
            fisher=lambda: self._fisher_product(points, batches),
            max_kl=config.max_kl,
            iterations=config.cg_iterations,
            damping=config.damping,
            executor=config.executor,
            chunk=self._tasks_at_a_time(batches[-1]),
            ranks=self.ranks,
        )
        return metrics

    def _fisher_product(self, points: list[Params], batches: list[Batch]) -> Callable[[Params], Params]:
        """Return v -> mean_i J_iᵀ F_i J_i v on a fraction of the episodes."""
        config = self.config
        episodes = max(1, round(config.fisher_fraction * config.episodes))
        parts = [first_episodes(batch, episodes) for batch in batches]
        _, rates = self.split(self.meta)
        products = []
        for near, seen in task_chunks((points, parts), self._tasks_at_a_time(parts[-1])):
            jacobian = AdaptationJacobian(self.loss, near[:-1], seen[:-1], rates, first_order=config.first_order)
            observations, weights = seen[-1]["observations"].flatten(1, 2), seen[-1]["weights"].flatten(1)
            fisher = PolicyFisher(self.policy, near[-1], observations, weights)
            products.append((len(fisher), partial(self._pulled_back, jacobian, fisher)))
        return mean_product(products, self.ranks)

    def _pulled_back(self, jacobian: AdaptationJacobian, fisher: PolicyFisher, tangent: Params) -> Params:
        """Return Jᵀ F J v of every task for a change v of the meta-parameters, which may have rates."""
        theta = {name: value for name, value in tangent.items() if not name.startswith(RATE)}
        learned = self.config.learn_rates
        rate = {name: tangent[RATE + name] for name in theta} if learned else None
        pulled, pulled_rate = jacobian.pull(fisher(jacobian.push(theta, rate)))
        return pulled | ({RATE + name: value for name, value in pulled_rate.items()} if learned else {})

    # -- test and storage -------------------------------------------------------------------------------------------

    def start(self, tasks: Tasks) -> GradientLearner:
        """Return the learner that adapts to M new tasks."""
        theta, rates = self.split(self.meta)
        return GradientLearner(
            network=self.policy,
            params=stack(theta, len(tasks)),
            rates=rates,
            later=self.config.later_rate,
            estimator=self.config.estimator,
            discount=self.config.discount,
            trace=self.config.trace,
            scale=self.scaler.scale,
            chunk=tasks_of_a_test(self.device),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the meta-parameters, and the scale of observations."""
        return {"meta": {name: value.cpu() for name, value in self.meta.items()}, **self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`; raise ValueError where it does not fit."""
        self.meta = load_params(self.meta, state["meta"])
        self.scaler.load_state_dict(state)
