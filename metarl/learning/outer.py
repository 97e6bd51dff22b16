"""The outer step by TRPO: one trust-region step on what the policies of a meta-batch have in common.

    max_θ  mean_i  S_i(θ'_i; D_i)   s.t.   mean_i  KL(π_i,old ‖ π_θ'_i(θ)) <= δ

θ'_i(θ) is what adaptation to task i makes of θ, recomputed for every candidate, or θ itself where nothing is adapted.
S_i is the surrogate on the episodes that π_i,old played.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metarl.learning.experience import Batch, StochasticPolicy, mean_kl, surrogate
from metarl.learning.inner import Executor, meta_gradients, over_tasks
from metarl.learning.trust_region import gradient_metrics, trust_region_step
from metarl.nets.policy import stack
from metarl.ranks import ALONE, Ranks
from metarl.types import Metrics, Params


def outer_step(
    params: Params,
    adapted: Callable[[Params, list[Batch]], Params],
    before: list[Batch],
    after: Batch,
    old: Params,
    *,
    policy: StochasticPolicy,
    fisher: Callable[[], Callable[[Params], Params]],
    max_kl: float,
    iterations: int,
    damping: float,
    executor: Executor = "grouped",
    chunk: int = 0,
    ranks: Ranks = ALONE,
) -> tuple[Params, Metrics]:
    """Take the step.

    Args:
        params: θ, of all tasks.
        adapted: (θ, `before`) -> θ', differentiably; of one task, or of M with both leading.
        before: the data that are adapted to, every tensor [M, ...]; empty where nothing is adapted.
        after: the data of the surrogate, every tensor [M, ...].
        old: parameters of the policies that played `after`, with leading axis M.
        policy: the network.
        fisher: gives v -> F v for θ, mean over the tasks of all ranks, without damping. Called when the gradient is
            known: the graphs of both are never in memory together.
        max_kl: δ, nats.
        iterations: conjugate-gradient products.
        damping: added to F's diagonal.
        executor: how tasks are computed (see inner.py).
        chunk: tasks computed at a time; 0 for all.
        ranks: which of them have M tasks each; all take the same step.

    Returns:
        The new θ, the old one where no candidate was accepted; and the figures to log.
    """
    gain = surrogate(policy)
    tasks = len(after["weights"])

    def objective(theta: Params, data: dict[str, Any]) -> Tensor:
        return gain(adapted(theta, data["before"]), data["after"])

    def measure(theta: Params, data: dict[str, Any]) -> tuple[Tensor, Tensor]:
        theta = adapted(theta, data["before"])
        return gain(theta, data["after"]), mean_kl(policy, data["old"], theta, data["after"])

    @torch.no_grad()
    def evaluate(theta: Params) -> tuple[float, float]:
        values, kl = over_tasks(measure, stack(theta, tasks), {**data, "old": old}, executor=executor, chunk=chunk)
        # One look at the device for a candidate.
        gained, moved = torch.stack((values.mean(), kl.mean())).tolist()
        return ranks.mean((gained, moved))

    data: dict[str, Any] = {"before": before, "after": after}
    gradients, values = meta_gradients(objective, params, data, executor=executor, chunk=chunk)
    outcome = trust_region_step(
        params,
        ranks.mean({name: value.mean(0) for name, value in gradients.items()}),
        fisher(),
        evaluate,
        ranks.mean(float(values.mean())),
        max_kl=max_kl,
        iterations=iterations,
        damping=damping,
    )
    return outcome.params, outcome.metrics() | gradient_metrics(gradients, ranks)
