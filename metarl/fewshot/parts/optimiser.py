"""The outer optimiser: steps on parameters in a dict, with a schedule, the same on every rank."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from metarl.config import check
from metarl.errors import UserError
from metarl.learning.finite import check_parts
from metarl.learning.optimisers import load_optimiser
from metarl.nets.policy import load_params
from metarl.ranks import ALONE, Ranks
from metarl.types import Metrics, Params

NOTHING = (
    "This learner has nothing to train with a backbone whose weights stay as they are. Give --iterations 0, which "
    "makes it ready for tests, or take one whose head is trained: r2d2, logistic, matching, relation, siamese, baseline"
)
"""The error of a training that could change nothing."""


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """The outer optimiser."""

    optimiser: Literal["adam", "sgd"] = "adam"
    """Adam, or SGD with Nesterov momentum 0.9."""
    learning_rate: float = 1e-3
    """At the start."""
    halve_every: int = 0
    """Updates after which the learning rate is halved, again and again; 0: never."""
    weight_decay: float = 0.0
    """Decoupled from the gradient (AdamW), or added to it in SGD."""
    clip: float = 0.0
    """Each component of the gradient is cut to ±clip; 0: none is."""

    def __post_init__(self) -> None:
        check(self, at_least={"learning_rate": 0.0, "halve_every": 0, "weight_decay": 0.0, "clip": 0.0})


class Optimiser:
    """An optimiser of parameters in a dict, with its schedule.

    Args:
        config: its settings.
        params: leaves, changed in place.
        ranks: over which the mean of the gradients is taken.
    """

    def __init__(self, config: OptimiserConfig, params: Params, ranks: Ranks = ALONE) -> None:
        self.config = config
        self.ranks = ranks
        self.params = params
        leaves = [value.requires_grad_() for value in params.values()]
        rate, decay = config.learning_rate, config.weight_decay
        self._optimiser: torch.optim.Optimizer | None = None
        if leaves and config.optimiser == "adam":
            self._optimiser = torch.optim.AdamW(leaves, lr=rate, weight_decay=decay, fused=True)
        elif leaves:
            self._optimiser = torch.optim.SGD(leaves, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)

    def step(self, gradients: Params, number: int) -> Metrics:
        """Take a step.

        Args:
            gradients: of every parameter, of this rank's tasks.
            number: of the update, from 0: the schedule follows it.

        Raises:
            NotFiniteError: a gradient is not finite; nothing is changed.
            UserError: there are no parameters.
        """
        if self._optimiser is None:
            raise UserError(NOTHING)
        gradients = self.ranks.mean(gradients)
        norm = nn.utils.get_total_norm(list(gradients.values()))
        if not bool(norm.isfinite()):
            check_parts([("the parameter", self.params)], "the meta-gradient is not finite")
        rate = self.config.learning_rate
        if self.config.halve_every:
            rate *= 0.5 ** (number // self.config.halve_every)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        for name, value in self.params.items():
            gradient = gradients[name].detach()
            gradient = gradient.clamp(-self.config.clip, self.config.clip) if self.config.clip else gradient
            # The fused optimiser takes elements as they lie in memory: in another layout it would mix them up.
            same = gradient.stride() == value.stride()
            value.grad = gradient if same else torch.empty_like(value).copy_(gradient)
        self._optimiser.step()
        return {"update/gradient_norm": float(norm), "update/learning_rate": rate}

    def descend(self, loss: Tensor, number: int) -> Metrics:
        """Take a step down a loss of the parameters; the rest as in `step`."""
        if self._optimiser is None:
            raise UserError(NOTHING)
        gradients = torch.autograd.grad(loss, list(self.params.values()), materialize_grads=True)
        return self.step(dict(zip(self.params, gradients, strict=True)), number)

    def state_dict(self) -> dict[str, Any]:
        """Return parameters and the optimiser's own state."""
        return {
            "params": {name: value.detach().to("cpu", copy=True) for name, value in self.params.items()},
            # Copies: the optimiser works in place.
            "optimiser": {} if self._optimiser is None else deepcopy(self._optimiser.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore both.

        Raises:
            ValueError: names or shapes differ.
        """
        stored = load_params(self.params, state["params"])
        with torch.no_grad():
            for name, value in self.params.items():
                value.copy_(stored[name])
        if self._optimiser is not None:
            load_optimiser(self._optimiser, state["optimiser"])
