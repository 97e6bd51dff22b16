"""Scores of queries, and what is made of them: losses, accuracies, figures of a training."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as nnf

from metarl.errors import UserError
from metarl.fewshot.episodes import Episodes
from metarl.types import Metrics


def task_loss(scores: Float[Tensor, "*M Q values"], y: Shaped[Tensor, "*M Q *J"], way: int) -> Float[Tensor, "*M"]:
    """Return the mean loss of every task: cross-entropy, or squared error where there are no classes (way 0)."""
    if way == 0:
        return (scores - y).square().mean((-2, -1))
    # gather in place of nll_loss: it takes any number of leading axes, also under vmap.
    return -nnf.log_softmax(scores, -1).gather(-1, y[..., None]).squeeze(-1).mean(-1)


def accuracy(scores: Float[Tensor, "M Q N"], y: Int[Tensor, "M Q"]) -> Float[Tensor, " M"]:
    """Return the part of the queries of every task whose best score is that of their class."""
    return (scores.argmax(-1) == y).float().mean(-1)


def scores_metrics(scores: Tensor, episodes: Episodes) -> Metrics:
    """Return `train/loss`, and `train/accuracy` where there are classes."""
    way = episodes.support.way
    metrics = {"train/loss": float(task_loss(scores.detach(), episodes.query_y, way).mean())}
    if way:
        metrics["train/accuracy"] = float(accuracy(scores.detach(), episodes.query_y).mean())
    return metrics


def class_weights(y: Int[Tensor, "M S"], way: int, dtype: torch.dtype) -> Float[Tensor, "M N S"]:
    """Return the matrix that takes the mean of the support items of every class.

    Raises:
        UserError: a class has no support item.
    """
    members = nnf.one_hot(y, way).transpose(-1, -2).to(dtype)
    counts = members.sum(-1, keepdim=True)
    if bool((counts == 0).any()):
        raise UserError(f"Got a support set with none of some class. Give at least one item of each of {way} classes.")
    return members / counts


def nearness(features: Float[Tensor, "M Q F"], means: Float[Tensor, "M N F"]) -> Float[Tensor, "M Q N"]:
    """Return the negative squared distances to N points, but for a part that is the same for all of them."""
    # ‖f - c‖² without ‖f‖², and with no [M, Q, N, F] on the way.
    return 2.0 * features @ means.mT - means.square().sum(-1)[:, None]
