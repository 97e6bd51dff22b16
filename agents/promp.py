"""ProMP: meta-learn an initial policy as MAML does, by a proximal outer step that keeps all policies of a trial near.

Rothfuss, Lee, Clavera, Asfour, Abbeel 2018, "ProMP: Proximal Meta-Policy Search" (arXiv 1810.06784). With
ρ_θ = π_θ / π_old on the data that π_old played,

    θ_{k+1} = θ_k + α ∇ mean[ρ_θk A_k]                             n adaptation steps from θ_0 = θ (`lvc` of MAML-TRPO)
    max_θ  mean_i { mean min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)         ρ = π_θn / π_θn,old, after adaptation
                    - mean_k η_k mean KL(π_θk,old ‖ π_θk) }        k = 0 ... n - 1: the policies that are adapted

by some steps of Adam on the whole meta-batch, through the adaptation, second order kept. The last policy has no
penalty, and the ratio of the adaptation no clip. With `target_kl` δ, η_k is halved after an iteration where KL_k is
below δ / 1.5, and doubled where it is above 1.5 δ.

Deviations from the authors' code, each for a reason: episodes are whole, and as many for every task, where its sampler
stops at a number of steps; actions are in units of half their range, where it maps -10..10 to the range, so that its σ
of 1 is 0.1 here (`--initial-std 0.1`) and its α of 0.1 another step; and observations are scaled
(metarl/learning/scaling.py; `scale_observations`), where its are as they come.
"""

from __future__ import annotations

import math
import time
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.config import MOST_ITERATIONS, MOST_STEPS, check
from metarl.learning.chunks import TasksAtATime, tasks_of_a_test
from metarl.learning.experience import Batch, inner_loss, log_probs, mean_kl, spread
from metarl.learning.finetune import (
    GradientLearner,
    check_observation,
    policy_for,
    unused_by_policy,
    weights_of_policy,
)
from metarl.learning.finite import check_parts
from metarl.learning.inner import Executor, Rates, adapt, meta_gradients, over_tasks
from metarl.learning.meta_batch import MOST_INNER_STEPS, memory_of_meta_batches, play_meta_batch
from metarl.learning.optimisers import load_optimiser
from metarl.learning.ppo import clipped_gain, in_one_kernel
from metarl.learning.scaling import Scaler
from metarl.learning.trust_region import gradient_metrics
from metarl.nets.pictures import with_pictures
from metarl.nets.policy import Activation, load_params, stack
from metarl.ranks import ALONE, Ranks
from metarl.seeding import Streams
from metarl.types import BatchEnv, EnvSpec, Metrics, Params, SampleTasks, Tasks

NEAR = 1.5
"""Between δ / NEAR and NEAR δ a KL leaves its weight as it is."""


@dataclass(frozen=True, kw_only=True)
class PrompConfig:
    """Defaults are the recipe of the paper, with tasks for two CPU cores."""

    iterations: int = 800
    """Meta-iterations."""
    tasks: int = 20
    """Tasks of a meta-batch, M (the paper: 40)."""
    episodes: int = 20
    """Episodes of a task before and after each adaptation step, K."""
    inner_steps: int = 1
    """Adaptation steps in training, n."""
    inner_rate: float = 0.1
    """Inner rate α."""
    later_rate: float = 0.5
    """At test, factor on α after the first step."""
    clip: float = 0.3
    """ε of the clipped objective."""
    outer_steps: int = 5
    """Steps of Adam on a meta-batch."""
    learning_rate: float = 1e-3
    """Of Adam."""
    kl_weight: float = 5e-4
    """η of every adaptation step, at the start."""
    target_kl: float = 0.0
    """δ that the weights η are to keep, nats; 0: they stay."""
    discount: float = 0.99
    """γ per step."""
    trace: float = 1.0
    """λ of the advantages."""
    scale_observations: bool = True
    """Show the networks observations in standard deviations from their mean so far, so that units do not matter."""
    encode_pictures: bool = True
    """Show the networks of pictures among the observations what a small convolutional encoder, trained with them, makes
    of their pixels; if not, pixels are numbers as others."""
    hidden: tuple[int, ...] = (64, 64)
    """Hidden layers of the policy."""
    activation: Activation = "tanh"
    """Activation of the hidden layers."""
    layer_norm: bool = False
    """Normalise the hidden layers."""
    initial_std: float = 1.0
    """Initial standard deviation of the actions, in units of half the action range."""
    output_gain: float = 0.1
    """Scale of the last layer's initial weights: small, so that training starts near zero actions."""
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
        return unused_by_policy(self, spec, device)

    def __post_init__(self) -> None:
        check(self, at_least={"gpu_memory": 0, "iterations": 0}, at_most={"iterations": MOST_ITERATIONS})
        check(self, at_least={"tasks": 1, "episodes": 1, "inner_steps": 1, "outer_steps": 1, "chunk_steps": 1})
        check(self, at_most={"inner_steps": MOST_INNER_STEPS, "outer_steps": MOST_STEPS})
        check(self, at_least={"inner_rate": 0.0, "later_rate": 0.0, "output_gain": 0.0, "kl_weight": 0.0})
        check(self, at_least={"target_kl": 0.0, "discount": 0.0, "trace": 0.0})
        check(self, above={"clip": 0.0, "learning_rate": 0.0, "initial_std": 0.0})
        check(self, at_most={"discount": 1.0, "trace": 1.0})


class Promp:
    """The agent.

    Args:
        config: its settings.
        spec: the family's sizes.
        streams: `init` draws the initial parameters.
        device: where the networks and the update live.
        ranks: the processes that train it together: means over tasks are over the tasks of all of them.
    """

    name = "promp"
    trial = 1
    pools = True

    def __init__(
        self, config: PrompConfig, spec: EnvSpec, streams: Streams, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        spec = with_pictures(spec, config.encode_pictures)
        check_observation(self.name, spec)
        self.config = config
        self.device = device
        self.ranks = ranks
        self.tasks = ranks.share(config.tasks)
        self.policy = policy_for(config, spec)
        self.scaler = Scaler(spec, on=config.scale_observations)
        self.loss = inner_loss(self.policy, "lvc")
        self.at_a_time = TasksAtATime(config.chunk_steps, config.gpu_memory)
        self.kl_weights = [config.kl_weight] * config.inner_steps
        self.begin_with({name: value.to(device) for name, value in self.policy.init(streams["init"]).items()})

    def begin_with(self, meta: Params) -> None:
        """Begin with these parameters, and with an optimiser that has taken no step."""
        self.meta = {name: value.clone() for name, value in meta.items()}
        self.optimiser = torch.optim.Adam(
            list(self.meta.values()), lr=self.config.learning_rate, fused=in_one_kernel(self.device)
        )

    @property
    def rates(self) -> Rates:
        """α of every parameter."""
        return dict.fromkeys(self.meta, self.config.inner_rate)

    # -- the objective ----------------------------------------------------------------------------------------------

    def adapted(self, theta: Params, before: list[Batch]) -> list[Params]:
        """Compute θ_0 ... θ_n from θ and the data of every adaptation step, differentiably."""
        points = [theta]
        for batch in before:
            points.append(adapt(self.loss, points[-1], batch, self.rates))
        return points

    def gain(self, theta: Params, after: Batch) -> Float[Tensor, "*M"]:
        """Compute the clipped objective of adapted policies, mean over real steps, per task."""
        ratio = torch.exp(log_probs(self.policy, theta, after) - after["old_log_probs"])
        return (clipped_gain(ratio, after["advantages"], self.config.clip) * after["weights"]).sum((-2, -1))

    def kls(self, points: list[Params], data: dict[str, Any]) -> list[Tensor]:
        """Compute KL(π_old ‖ π) of the policies that are adapted, on the data that they are adapted on: n of [M]."""
        pairs = zip(data["old"], points[:-1], data["before"], strict=True)
        return [mean_kl(self.policy, old, new, batch) for old, new, batch in pairs]

    def objective(self, theta: Params, data: dict[str, Any]) -> Float[Tensor, "*M"]:
        """Compute what the outer steps go up, per task.

        Args:
            theta: θ, with leading axis M, or of one task.
            data: `before`, the batches of every adaptation step; `old`, the parameters that played them; `after`, the
                batch of the adapted policies.
        """
        points = self.adapted(theta, data["before"])
        weighted = [weight * kl for weight, kl in zip(self.kl_weights, self.kls(points, data), strict=True)]
        return self.gain(points[-1], data["after"]) - torch.stack(weighted).mean(0)

    # -- training ---------------------------------------------------------------------------------------------------

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        """Collect, adapt, collect again, and take some steps of Adam on the meta-parameters."""
        # A copy: the optimiser works in place, and the policies that played are compared with.
        theta = {name: value.clone() for name, value in self.meta.items()}
        seen = play_meta_batch(self, theta, self.rates, self._tasks_at_a_time, env, sample_tasks, streams)
        started = time.perf_counter()
        update = self._update(seen.points, seen.batches)
        self.scaler.update(seen.played, self.ranks)
        return {
            **seen.figures(),
            **update,
            **spread(self.policy, seen.points[-1], seen.batches[-1]),
            "time/update": time.perf_counter() - started,
        }

    def _tasks_at_a_time(self, batch: Batch) -> int:
        """Return how many tasks of a batch are computed at a time."""
        count = self.config.inner_steps

        def outer(theta: Params, one: Batch) -> Tensor:
            return self.objective(theta, {"before": [one] * count, "old": [theta] * count, "after": one})

        return self.at_a_time(batch, self.meta, outer)

    def _update(self, points: list[Params], batches: list[Batch]) -> Metrics:
        """Take the outer steps; `points` are θ_0 ... θ_n of every task, `batches` the data collected at each."""
        config, ranks = self.config, self.ranks
        data: dict[str, Any] = {"before": batches[:-1], "old": points[:-1], "after": batches[-1]}
        chunk = self._tasks_at_a_time(batches[-1])
        first, logged = 0.0, {}
        for step in range(config.outer_steps):
            theta = {name: value.detach() for name, value in self.meta.items()}
            gradients, values = meta_gradients(self.objective, theta, data, executor=config.executor, chunk=chunk)
            if step == 0:
                first, logged = ranks.mean(float(values.mean())), gradient_metrics(gradients, ranks)
            mean = ranks.mean({name: value.mean(0) for name, value in gradients.items()})
            self._step(mean, batches)

        def measure(theta: Params, data: dict[str, Any]) -> tuple[Tensor, ...]:
            reached = self.adapted(theta, data["before"])
            moved = mean_kl(self.policy, data["last"], reached[-1], data["after"])
            return self.objective(theta, data), moved, *self.kls(reached, data)

        with torch.no_grad():
            measured = over_tasks(
                measure,
                stack(self.meta, self.tasks),
                {**data, "last": points[-1]},
                executor=config.executor,
                chunk=chunk,
            )
        last, moved, *kls = ranks.mean(
            torch.cat([value.reshape(self.tasks, -1).mean(0) for value in measured]).tolist()
        )
        if config.target_kl:
            pairs = zip(self.kl_weights, kls, strict=True)
            self.kl_weights = [next_weight(weight, kl, config.target_kl) for weight, kl in pairs]
        return {
            **logged,
            "update/surrogate_before": first,
            "update/surrogate_after": last,
            "update/improvement": last - first,
            "update/kl": moved,
            "update/kl_unadapted": sum(kls) / len(kls),
            "update/kl_weight": sum(self.kl_weights) / len(self.kl_weights),
            "update/steps": float(config.outer_steps),
        }

    def _step(self, gradient: Params, batches: list[Batch]) -> None:
        """Take one step up, in place.

        Raises:
            NotFiniteError: the gradient is not finite; the parameters are as before.
        """
        squares = torch.stack([value.square().sum() for value in gradient.values()])
        if not math.isfinite(float(squares.sum())):
            made: Params = {"advantages": torch.cat([batch["advantages"] for batch in batches])}
            parts = [("what is made of the rewards,", made), ("the parameter", self.meta)]
            check_parts(parts, "the meta-gradient is not finite")
        for name, value in self.meta.items():
            value.grad = -gradient[name]
        self.optimiser.step()
        for value in self.meta.values():
            value.grad = None

    # -- test and storage -------------------------------------------------------------------------------------------

    def start(self, tasks: Tasks) -> GradientLearner:
        """Return the learner that adapts to M new tasks."""
        return GradientLearner(
            network=self.policy,
            params=stack({name: value.clone() for name, value in self.meta.items()}, len(tasks)),
            rates=self.rates,
            later=self.config.later_rate,
            estimator="lvc",
            discount=self.config.discount,
            trace=self.config.trace,
            scale=self.scaler.scale,
            chunk=tasks_of_a_test(self.device),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the meta-parameters, the optimiser, the weights of the KLs, and the scale of observations."""
        return {
            # Copies: the optimiser works in place.
            "meta": {name: value.to("cpu", copy=True) for name, value in self.meta.items()},
            "optimiser": deepcopy(self.optimiser.state_dict()),
            "kl_weights": list(self.kl_weights),
            **self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`; raise ValueError where it does not fit."""
        weights = state["kl_weights"]
        if not all(isinstance(weight, float) and 0.0 <= weight < math.inf for weight in weights):
            raise ValueError(f"the stored weights of the KLs are {weights}, where numbers from 0 are needed")
        self.begin_with(load_params(self.meta, state["meta"]))
        # It may have been stored on another device.
        load_optimiser(self.optimiser, state["optimiser"], fused=in_one_kernel(self.device))
        self.kl_weights = list(weights)
        self.scaler.load_state_dict(state)


def next_weight(weight: float, kl: float, target: float) -> float:
    """Return the weight of a KL for the next iteration: less where it was small, more where it was large."""
    if kl < target / NEAR:
        return weight / 2.0
    return weight * 2.0 if kl > NEAR * target else weight
