"""Matching networks (Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra 2016): attention over the support items.

    a(x, x_i) = softmax_i(t · cos(f(x), g(x_i)))        equation 1 and section 2.1.1
    p(y | x)  = Σ_i a(x, x_i) [y_i = y]

Plain, f = g is the backbone. With `full_context` (section 2.1.2 and appendix A), both see the whole support set S:

    g(x_i, S) = h⃗_i + h⃖_i + g'(x_i)                     a bidirectional LSTM over the support items
    f(x, S):  ĥ_k, c_k = LSTM(f'(x), [h_{k-1}, r_{k-1}], c_{k-1}),  h_k = ĥ_k + f'(x),
              r_{k-1} = Σ_i softmax_i(h_{k-1} · g(x_i)) g(x_i),   K steps from h = r = c = 0; f(x, S) = h_K

An LSTM reads a set as a sequence, so that the order of the support items has an influence, as in the paper. Here it
follows from the labels and from the order in which items are given: classes in the order of their first items, the
items of a class in theirs. Names of the classes play no part.

Differences: the cosine is multiplied by an inverse temperature t, which is learned (the paper has none, t = 1: with 20
ways the best item could not get more than 28% of the attention). Scores are the logarithms of p(y | x).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as nnf

from metarl.config import MOST_ITERATIONS, MOST_STEPS, check
from metarl.fewshot.parts.comparing import EpisodicLearner, episodic_optimiser
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.parts.optimiser import OptimiserConfig
from metarl.seeding import Streams
from metarl.types import Params


@dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """Settings of matching networks."""

    iterations: int = 600
    """Meta-updates."""
    tasks: int = 4
    """Episodes of a meta-update, M."""
    train_way: int = 20
    """Ways of the training episodes, at most as many as the data can give; 0: as many as at test."""
    inverse_temperature: float = 10.0
    """What cosines are multiplied by, t, at the start; it is learned."""
    full_context: bool = False
    """Let the features of every item depend on the whole support set."""
    steps: int = 5
    """Steps of the LSTM that reads the support set for a query, K."""
    optimiser: OptimiserConfig = field(default_factory=episodic_optimiser)
    """The outer optimiser."""

    def unused(self) -> dict[str, str]:
        """Return settings that change nothing -> what they would need."""
        return {} if self.full_context else {"steps": "--full-context"}

    def __post_init__(self) -> None:
        check(self, at_most={"iterations": MOST_ITERATIONS, "steps": MOST_STEPS})
        check(self, at_least={"iterations": 0, "tasks": 1, "train_way": 0, "steps": 1})
        check(self, above={"inverse_temperature": 0.0})


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The head.

    Attributes:
        inverse_temperature: t at the start.
        steps: K with full context; 0 without.
    """

    inverse_temperature: float
    steps: int

    def init(self, features: int, generator: torch.Generator, dtype: torch.dtype) -> Params:
        """Draw log t and, with full context, the LSTMs over features of their own size."""
        params: Params = {"log_t": torch.tensor(math.log(self.inverse_temperature), dtype=dtype)}
        if self.steps:
            for name, inputs in (("forwards", features), ("backwards", features), ("read", features)):
                within = 2 * features if name == "read" else features
                params |= {
                    f"{name}.{key}": value for key, value in _lstm(inputs, within, features, generator, dtype).items()
                }
        return params

    def learn(
        self, params: Params, features: Float[Tensor, "M S F"], y: Int[Tensor, "M S"], way: int
    ) -> tuple[Tensor, ...]:
        """Return the features of the support items, [M, S, F], and their one-hot labels, [M, S, N]."""
        members = nnf.one_hot(y, way).to(features.dtype)
        if self.steps:
            order = _order(y, way)
            members = members.take_along_dim(order[..., None], dim=1)
            features = _in_context(params, features.take_along_dim(order[..., None], dim=1))
        return features, members

    def scores(
        self, params: Params, learned: tuple[Tensor, ...], features: Float[Tensor, "M Q F"]
    ) -> Float[Tensor, "M Q N"]:
        """Return the logarithms of the attention that the items of every class get together."""
        support, members = learned
        if self.steps:
            features = _read(params, features, support, self.steps)
        cosines = nnf.normalize(features, dim=-1) @ nnf.normalize(support, dim=-1).mT
        attention = nnf.log_softmax(params["log_t"].exp() * cosines, -1)
        others = torch.zeros_like(members).masked_fill(members == 0, -math.inf)
        return torch.logsumexp(attention[..., None] + others[:, None], dim=2)


def _order(y: Int[Tensor, "M S"], way: int) -> Int[Tensor, "M S"]:
    """Return the order in which the LSTM meets the support items (see the module)."""
    size = y.shape[1]
    place = torch.arange(size, device=y.device).expand_as(y)
    first = torch.full((len(y), way), size, device=y.device).scatter_reduce(1, y, place, "amin")
    return (first.gather(1, y) * size + place).argsort(1)


def _in_context(params: Params, features: Float[Tensor, "M S F"]) -> Float[Tensor, "M S F"]:
    """Return g(x_i, S)."""
    weights = [params[f"{name}.{key}"] for name in ("forwards", "backwards") for key in _PARTS]
    begin = features.new_zeros(2, len(features), features.shape[-1])
    read, _, _ = torch.lstm(features, (begin, begin), weights, True, 1, 0.0, False, True, True)
    return features + sum(read.chunk(2, dim=-1))


def _read(
    params: Params, features: Float[Tensor, "M Q F"], support: Float[Tensor, "M S F"], steps: int
) -> Float[Tensor, "M Q F"]:
    """Return f(x, S)."""
    into, within, into_bias, within_bias = (params[f"read.{key}"] for key in _PARTS)
    # The query goes in anew at every step.
    constant = nnf.linear(features, into, into_bias + within_bias)
    hidden, cell = torch.zeros_like(features), torch.zeros_like(features)
    for _ in range(steps):
        seen = torch.softmax(hidden @ support.mT, -1) @ support
        admit, keep, new, show = (constant + torch.cat((hidden, seen), -1) @ within.T).chunk(4, dim=-1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(admit) * torch.tanh(new)
        hidden = torch.sigmoid(show) * torch.tanh(cell) + features
    return hidden


_PARTS = ("into", "within", "into_bias", "within_bias")


def _lstm(inputs: int, within: int, outputs: int, generator: torch.Generator, dtype: torch.dtype) -> Params:
    """Draw an LSTM, uniform in ±1 / sqrt(outputs), its gates in torch's order."""
    bound = 1.0 / math.sqrt(outputs)
    sizes = ((4 * outputs, inputs), (4 * outputs, within), (4 * outputs,), (4 * outputs,))
    draws = (torch.rand(size, generator=generator, dtype=torch.float64) for size in sizes)
    return {key: ((draw * 2.0 - 1.0) * bound).to(dtype) for key, draw in zip(_PARTS, draws, strict=True)}


def make(config: MatchingConfig, setting: Setting, streams: Streams, device: torch.device) -> EpisodicLearner:
    """Return the learner."""
    head = Attention(inverse_temperature=config.inverse_temperature, steps=config.steps if config.full_context else 0)
    return EpisodicLearner("matching", config, setting, head, streams, device)
