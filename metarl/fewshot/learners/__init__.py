"""Few-shot learners by name, one a file. A file is imported when its learner is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from metarl.arguments import checked
from metarl.errors import UserError, nearest
from metarl.fewshot.parts.learner import FewShotLearner, Setting
from metarl.seeding import Streams

LEARNERS: dict[str, tuple[str, str, str]] = {
    "proto": ("proto", "ProtoConfig", "a class is the mean of its features; the nearest one wins"),
    "matching": ("matching", "MatchingConfig", "cosine attention over the support items, plain or in full context"),
    "siamese": ("siamese", "SiameseConfig", "learns whether two items are of one class; the best pair wins"),
    "relation": ("relation", "RelationConfig", "compares queries and classes by a learned network"),
    "r2d2": ("r2d2", "R2d2Config", "ridge regression on features, solved in closed form"),
    "logistic": ("logistic", "LogisticConfig", "logistic regression on features, solved to its optimum"),
    "maml": ("maml", "MamlConfig", "a start from which few gradient steps lead far; also ANIL, Meta-SGD, MAML++"),
    "reptile": ("reptile", "ReptileConfig", "moves the start towards where training on a task ends"),
    "imaml": ("imaml", "ImamlConfig", "MAML to the optimum of a task, with implicit gradients"),
    "baseline": ("baseline", "BaselineConfig", "an ordinary classifier; a new linear head for every task"),
    "baseline++": ("baseline", "BaselinePlusPlusConfig", "the same with heads that compare by the cosine"),
    "simpleshot": ("simpleshot", "SimpleShotConfig", "an ordinary classifier; nearest mean of centred features"),
}
"""Name -> (module here, its config class, summary). A module has `make(config, setting, streams, device)`,
which tells by the config where it makes several learners."""


@checked
def config_class(name: str) -> type[Any]:
    """Return a learner's config class.

    Raises:
        UserError: unknown learner; lists what exists.
    """
    return getattr(_module(name), LEARNERS[name][1])


def check_config(name: str, config: Any) -> None:
    """Refuse the settings of another learner, or none.

    Raises:
        UserError: says whose settings are needed.
    """
    wanted = config_class(name)
    if not isinstance(config, wanted):
        raise UserError(f"Got a {type(config).__name__} for {name}. Give a {wanted.__name__}.")


def make(name: str, config: Any, setting: Setting, streams: Streams, device: torch.device) -> FewShotLearner:
    """Return a freshly initialised learner.

    Args:
        name: of the learner.
        config: an object of its config class.
        setting: what it is made for.
        streams: `init` draws the initial parameters.
        device: where everything lives.

    Raises:
        UserError: unknown learner, a config of another one, or a setting that it cannot have.
    """
    check_config(name, config)
    return _module(name).make(config, setting, streams, device)


def _module(name: str) -> Any:
    if name not in LEARNERS:
        raise UserError(f"Unknown learner '{name}'.{nearest(name, LEARNERS)}")
    return import_module(f"{__name__}.{LEARNERS[name][0]}")
