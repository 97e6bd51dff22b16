"""manifest.json: all that is known of an exported policy, in an order to be read; and the arrays that it names.

README.md tells what each entry means. `Exported` is what the folder is made of.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.config import to_plain
from metarl.deployment.policy import FORMAT
from metarl.deployment.told import told
from metarl.envs.family import Family
from metarl.errors import UserError
from metarl.learning import baseline, returns
from metarl.learning.description import Describable, Description, GradientSteps
from metarl.nets.layers import Layer
from metarl.types import MetaAgent
from metarl.version import __version__

LOG_STD = "distribution.log_std"
RATE = "rate."
"""Before the name of an array that has the rates of another one."""


@dataclass(frozen=True)
class Exported:
    """A policy that is exported."""

    manifest: dict[str, Any]
    """Content of manifest.json, but for the files."""
    arrays: dict[str, np.ndarray]
    """Content of weights.safetensors."""


def exported(agent: MetaAgent, family: Family, training: dict[str, Any]) -> Exported:
    """Return what an agent's folder is made of.

    Args:
        agent: trained on the family.
        family: its tasks, observations and actions.
        training: what is to be told of the training, as plain data.

    Raises:
        UserError: the agent cannot be told as plain data.
    """
    learner = agent.start(family.space.sample(1, "train", torch.Generator().manual_seed(0)))
    if not isinstance(learner, Describable):
        raise UserError(
            f"Got the agent '{agent.name}', whose learner has no `describe`: it cannot be exported. See "
            "metarl/learning/description.py for what that returns."
        )
    description = learner.describe(family.spec())
    arrays: dict[str, np.ndarray] = {}
    network = _network(description, arrays)
    adaptation = _adaptation(description.steps, agent, network, arrays)
    manifest = {
        "format": FORMAT,
        "what": "a policy exported by metarl",
        "versions": {
            "metarl-suite": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "agent": {"name": agent.name, "settings": to_plain(agent.config), "training": training},
        "family": {"name": family.full_name, "summary": family.summary, "source": family.source},
        "control": {"rate_hz": 1.0 / family.step_seconds, "step_seconds": family.step_seconds},
        "trial": _trial(agent, description, family),
        "observation": [
            {"index": index, "meaning": row.meaning, "name": row.name, "unit": row.unit}
            for index, row in enumerate(family.observables)
        ],
        "action": _action(family),
        "tasks": [to_plain(parameter) | told(parameter) for parameter in family.space.parameters],
        "network": network,
        "adaptation": adaptation,
    }
    return Exported(manifest, arrays)


def _trial(agent: MetaAgent, description: Description, family: Family) -> dict[str, Any]:
    """Return how episodes follow one another, and what lasts from one to the next."""
    remembers = any(part.of == "reward" for part in description.inputs)
    told = any(part.of == "task" for part in description.inputs)
    how = "memory" if remembers else "gradient" if description.steps else "told" if told else "nothing"
    lasts = {
        "memory": "The memory lasts from the first step of a task to its last; an episode's end does not clear it.",
        "gradient": "Parameters last until the next gradient step; a new task begins with the initial ones.",
        "told": "What the policy is told of its task.",
        "nothing": "There is nothing that lasts: the policy is the same in every task.",
    }
    return {
        "adapts_by": how,
        "horizon": family.horizon,
        "episodes": agent.trial if remembers else agent.config.episodes,
        "between_episodes": lasts[how],
    }


def _action(family: Family) -> dict[str, Any]:
    """Return what an action is."""
    if family.discrete:
        return {"kind": "choices", "unit": family.action_unit, "choices": list(family.choices)}
    bounds = zip(family.action_low, family.action_high, strict=True)
    components = [{"index": index, "low": low, "high": high} for index, (low, high) in enumerate(bounds)]
    return {"kind": "continuous", "unit": family.action_unit, "components": components}


def _network(description: Description, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return inputs, layers and distribution; their arrays are added to `arrays`."""
    inputs = []
    for part in description.inputs:
        names = {name: _kept(arrays, f"inputs.{part.of}.{name}", getattr(part, name)) for name in ("mean", "divisor")}
        inputs.append({"of": part.of, "size": part.size, **names, "limit": part.limit})
    layers = [
        {"kind": layer.kind, "tensors": _layer(arrays, f"layers.{number}.", layer), "numbers": dict(layer.numbers)}
        for number, layer in enumerate(description.layers)
    ]
    log_std = _kept(arrays, LOG_STD, description.log_std)
    kind = "choices" if log_std is None else "normal"
    distribution = {"kind": kind, "log_std": log_std, "least_log_std": description.least_log_std}
    return {"inputs": inputs, "layers": layers, "distribution": distribution}


def _adaptation(
    steps: GradientSteps | None, agent: MetaAgent, network: dict[str, Any], arrays: dict[str, np.ndarray]
) -> dict[str, Any] | None:
    """Return how the policy takes gradient steps; None where it does not."""
    if steps is None:
        return None
    changed = [name for layer in network["layers"] for name in layer["tensors"].values()]
    changed += [LOG_STD] if LOG_STD in arrays else []
    rates: dict[str, Any] = dict.fromkeys(changed, steps.rate)
    if steps.rate is None:
        for number, layer in enumerate(steps.layers):
            _layer(arrays, f"{RATE}layers.{number}.", layer)
        _kept(arrays, RATE + LOG_STD, steps.log_std)
        rates = {name: RATE + name for name in changed}
    return {
        "episodes": agent.config.episodes,
        "rates": rates,
        "later": steps.later,
        "discount": steps.discount,
        "trace": steps.trace,
        "rounding": returns.ROUNDING,
        "baseline": {
            "clip": baseline.OBSERVATION_CLIP,
            "time_scale": baseline.TIME_SCALE,
            "ridge": baseline.RIDGE,
            "trials": baseline.TRIALS,
        },
    }


def _layer(arrays: dict[str, np.ndarray], prefix: str, layer: Layer) -> dict[str, Any]:
    """Add the arrays of a layer, and return their names by their part in it."""
    return {part: _kept(arrays, prefix + part, tensor) for part, tensor in layer.tensors.items()}


def _kept(arrays: dict[str, np.ndarray], name: str, tensor: Tensor | None) -> str | None:
    """Add an array under a name, and return the name; None where there is no array."""
    if tensor is None:
        return None
    arrays[name] = np.ascontiguousarray(tensor.detach().cpu().numpy())
    return name
