"""Functional networks: the parameters are a plain dict, so they can be adapted, stacked over tasks and saved.

Every forward pass accepts parameters with or without leading task axes: weights [O, H] act on observations [..., N, O],
weights [M, O, H] on observations [M, N, O] by one batched matrix product for all tasks. Nothing here needs vmap, and
everything here works under it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UserError
from metarl.memory import DOUBLE, FLOAT, layers, require
from metarl.ranks import ALONE, Ranks
from metarl.types import Params

Activation = Literal["relu", "tanh", "elu"]
NORM_EPSILON = 1e-5
"""Added to the variance that a layer is normalised by."""
LARGE = 10_000_000
"""From so many weights on it is looked first whether there is memory for them."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "elu": torch.nn.functional.elu,
}


@dataclass(frozen=True, kw_only=True)
class MLP:
    """A multi-layer perceptron.

    Attributes:
        inputs: input size.
        hidden: sizes of the hidden layers.
        outputs: output size.
        activation: after every hidden layer.
        layer_norm: normalise every hidden layer before its activation, with affine weights.
        output_gain: scale of the last layer's initial weights.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    activation: Activation = "tanh"
    layer_norm: bool = False
    output_gain: float = 1.0

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.hidden):
            raise UserError(f"Got hidden layers of {self.hidden}. Give each of them at least 1 unit.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Layer sizes from input to output."""
        return (self.inputs, *self.hidden, self.outputs)

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw parameters: Glorot-uniform weights [in, out], zero biases.

        Raises:
            UserError: they do not fit into memory.
        """
        weights = layers(self.inputs, self.hidden, self.outputs)
        if weights > LARGE:
            require({f"the layers of a network, {self.sizes}": (DOUBLE + 2 * FLOAT) * weights})
        params: Params = {}
        for i, (rows, columns) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            last = i == len(self.hidden)
            bound = math.sqrt(6.0 / (rows + columns)) * (self.output_gain if last else 1.0)
            unit = torch.rand(rows, columns, generator=generator, dtype=torch.float64)
            params[f"w{i}"] = ((unit * 2.0 - 1.0) * bound).to(dtype)
            params[f"b{i}"] = torch.zeros(columns, dtype=dtype)
            if self.layer_norm and not last:
                params[f"scale{i}"] = torch.ones(columns, dtype=dtype)
                params[f"shift{i}"] = torch.zeros(columns, dtype=dtype)
        return params

    def __call__(self, params: Params, x: Float[Tensor, "*batch N I"]) -> Float[Tensor, "*batch N J"]:
        """Compute the output; parameters may have leading task axes (see the module)."""
        activation = ACTIVATIONS[self.activation]
        last = len(self.hidden)
        for i in range(last + 1):
            x = affine(x, params[f"w{i}"], params[f"b{i}"])
            if i < last:
                if self.layer_norm:
                    x = _layer_norm(x, params[f"scale{i}"], params[f"shift{i}"])
                x = activation(x)
        return x


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute x @ weight + bias; weight [..., I, J] and bias [..., J] may have leading task axes, as x has."""
    if weight.dim() == 3 and x.dim() == 3:
        return torch.baddbmm(bias.unsqueeze(-2), x, weight)
    if weight.dim() == 2 and x.dim() == 2:
        return torch.addmm(bias, x, weight)
    return x @ weight + bias.unsqueeze(-2)


def _layer_norm(x: Tensor, scale: Tensor, shift: Tensor, epsilon: float = NORM_EPSILON) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + epsilon).sqrt()
    return centred / deviation * scale.unsqueeze(-2) + shift.unsqueeze(-2)


@runtime_checkable
class Network(Protocol):
    """An `MLP`, or one behind an encoder: a function of parameters, which may have leading task axes."""

    @property
    def outputs(self) -> int:
        """Output size."""
        ...

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw parameters."""
        ...

    def __call__(self, params: Params, x: Float[Tensor, "*batch N I"]) -> Float[Tensor, "*batch N J"]:
        """Compute the output."""
        ...


class Normal(NamedTuple):
    """A diagonal Gaussian over actions: the policy's output at N observations.

    Attributes:
        mean: [..., N, A].
        log_std: broadcastable to `mean`, [..., 1, A].
    """

    mean: Tensor
    log_std: Tensor

    def sample(self, generator: torch.Generator, ranks: Ranks = ALONE) -> Float[Tensor, "*batch N A"]:
        """Draw an action at every observation; the noise comes from the generator's device.

        Where several ranks have a share of the first axis each, noise is drawn for all of them.
        """
        shape = ranks.whole(self.mean.shape)
        noise = torch.randn(shape, generator=generator, dtype=self.mean.dtype, device=generator.device)
        return torch.addcmul(self.mean, ranks.own(noise).to(self.mean.device), self.log_std.exp())

    def log_prob(self, action: Float[Tensor, "*batch N A"]) -> Float[Tensor, "*batch N"]:
        """Compute log-densities, summed over action dimensions."""
        standard = (action - self.mean) * torch.exp(-self.log_std)
        per_dimension = -0.5 * standard.square() - self.log_std - 0.5 * math.log(2.0 * math.pi)
        return per_dimension.sum(-1)

    def kl(self, other: Normal) -> Float[Tensor, "*batch N"]:
        """Compute KL(self ‖ other) at every observation."""
        ratio = torch.exp(2.0 * (self.log_std - other.log_std))
        distance = ((self.mean - other.mean) * torch.exp(-other.log_std)).square()
        return (other.log_std - self.log_std + 0.5 * (ratio + distance) - 0.5).sum(-1)

    def entropy(self) -> Float[Tensor, "*batch N"]:
        """Compute the differential entropy, nats."""
        per_dimension = self.log_std + 0.5 * math.log(2.0 * math.pi * math.e)
        return per_dimension.expand_as(self.mean).sum(-1)

    def fisher(self, tangent: Normal, weights: Float[Tensor, "*batch N"]) -> Normal:
        """Multiply a tangent by the Fisher information, 1/σ² for the mean and 2 for log σ, weighted over rows."""
        mean = tangent.mean * torch.exp(-2.0 * self.log_std) * weights.unsqueeze(-1)
        return Normal(mean, 2.0 * tangent.log_std * weights.sum(-1)[..., None, None])

    def detach(self) -> Normal:
        """Return the same distribution without gradient history."""
        return Normal(self.mean.detach(), self.log_std.detach())


class Categorical(NamedTuple):
    """A categorical distribution over actions: the policy's output at N observations.

    Attributes:
        logits: [..., N, A], any constant may be added.
    """

    logits: Tensor

    def sample(self, generator: torch.Generator, ranks: Ranks = ALONE) -> Float[Tensor, "*batch N A"]:
        """Draw a one-hot action at every observation; the rest as for `Normal`."""
        # Of exponential times with rates p, the first is that of each action with its probability p.
        times = torch.empty(ranks.whole(self.logits.shape), dtype=self.logits.dtype, device=generator.device)
        times.exponential_(generator=generator)
        chosen = (self.logits - ranks.own(times).to(self.logits.device).log()).argmax(-1)
        # Unlike `one_hot`, which looks at what was chosen.
        return torch.zeros_like(self.logits).scatter_(-1, chosen.unsqueeze(-1), 1.0)

    def log_prob(self, action: Float[Tensor, "*batch N A"]) -> Float[Tensor, "*batch N"]:
        """Compute log-probabilities of one-hot actions (so that all actions of the project have A components)."""
        return (torch.log_softmax(self.logits, -1) * action).sum(-1)

    def kl(self, other: Categorical) -> Float[Tensor, "*batch N"]:
        """Compute KL(self ‖ other) at every observation."""
        log_self = torch.log_softmax(self.logits, -1)
        return (log_self.exp() * (log_self - torch.log_softmax(other.logits, -1))).sum(-1)

    def entropy(self) -> Float[Tensor, "*batch N"]:
        """Compute the entropy, nats."""
        log_probabilities = torch.log_softmax(self.logits, -1)
        return -(log_probabilities.exp() * log_probabilities).sum(-1)

    def fisher(self, tangent: Categorical, weights: Float[Tensor, "*batch N"]) -> Categorical:
        """Multiply a tangent by the Fisher information diag(p) - p pᵀ of the logits, weighted over rows."""
        p = torch.softmax(self.logits, -1) * weights.unsqueeze(-1)
        return Categorical(p * tangent.logits - p * (torch.softmax(self.logits, -1) * tangent.logits).sum(-1, True))

    def detach(self) -> Categorical:
        """Return the same distribution without gradient history."""
        return Categorical(self.logits.detach())


class Choices(tuple[Tensor, ...]):
    """Several categorical distributions, independent of one another: the logits of each, [..., N, count]."""

    def __new__(cls, *logits: Tensor) -> Choices:
        """Take the logits of every choice."""
        return super().__new__(cls, logits)

    @classmethod
    def of(cls, logits: Tensor, counts: tuple[int, ...]) -> Choices:
        """Return those whose logits stand side by side, [..., N, A]."""
        return cls(*logits.split(list(counts), -1))

    def _parts(self, action: Tensor) -> Iterator[tuple[Categorical, Tensor]]:
        actions = action.split([logits.shape[-1] for logits in self], -1)
        return zip(map(Categorical, self), actions, strict=True)

    def sample(self, generator: torch.Generator, ranks: Ranks = ALONE) -> Float[Tensor, "*batch N A"]:
        """Draw one-hot actions side by side at every observation; the rest as for `Normal`."""
        return torch.cat([Categorical(logits).sample(generator, ranks) for logits in self], -1)

    def log_prob(self, action: Float[Tensor, "*batch N A"]) -> Float[Tensor, "*batch N"]:
        """Compute log-probabilities of one-hot actions side by side."""
        return torch.stack([part.log_prob(its) for part, its in self._parts(action)]).sum(0)

    def kl(self, other: Choices) -> Float[Tensor, "*batch N"]:
        """Compute KL(self ‖ other) at every observation."""
        pairs = zip(self, other, strict=True)
        return torch.stack([Categorical(mine).kl(Categorical(theirs)) for mine, theirs in pairs]).sum(0)

    def entropy(self) -> Float[Tensor, "*batch N"]:
        """Compute the entropy, nats."""
        return torch.stack([Categorical(logits).entropy() for logits in self]).sum(0)

    def fisher(self, tangent: Choices, weights: Float[Tensor, "*batch N"]) -> Choices:
        """Multiply a tangent by the Fisher information, of every choice its own, weighted over rows."""
        pairs = zip(self, tangent, strict=True)
        return Choices(*(Categorical(mine).fisher(Categorical(moved), weights).logits for mine, moved in pairs))

    def detach(self) -> Choices:
        """Return the same distribution without gradient history."""
        return Choices(*(logits.detach() for logits in self))


Distribution = Normal | Categorical | Choices


def fisher_of(
    distribution: Distribution, tangent: Sequence[Tensor], weights: Float[Tensor, "*batch N"]
) -> Distribution:
    """Multiply a tangent of a distribution's tensors by its Fisher information."""
    if isinstance(distribution, Normal):
        return distribution.fisher(Normal(*tangent), weights)
    if isinstance(distribution, Choices):
        return distribution.fisher(Choices(*tangent), weights)
    return distribution.fisher(Categorical(*tangent), weights)


def divergence(first: Distribution, second: Distribution) -> Float[Tensor, "*batch N"]:
    """Compute KL(first ‖ second) of two distributions of one kind at every observation."""
    if isinstance(first, Normal) and isinstance(second, Normal):
        return first.kl(second)
    if isinstance(first, Choices) and isinstance(second, Choices):
        return first.kl(second)
    assert isinstance(first, Categorical)
    assert isinstance(second, Categorical)
    return first.kl(second)


@dataclass(frozen=True, kw_only=True)
class GaussianPolicy:
    """A network for the mean and a free log standard deviation per action dimension.

    Attributes:
        network: observation -> mean.
        initial_std: σ at the start, in units of the scaled action (1 = half the action range).
        minimum_std: floor below which σ cannot fall.
    """

    network: Network
    initial_std: float = 1.0
    minimum_std: float = 1e-3

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw parameters."""
        params = self.network.init(generator, dtype)
        params["log_std"] = torch.full((self.network.outputs,), math.log(self.initial_std), dtype=dtype)
        return params

    def __call__(self, params: Params, observations: Float[Tensor, "*batch N O"]) -> Normal:
        """Compute the action distribution."""
        log_std = params["log_std"].clamp_min(math.log(self.minimum_std)).unsqueeze(-2)
        return Normal(self.network(params, observations), log_std)


@dataclass(frozen=True, kw_only=True)
class CategoricalPolicy:
    """A network for the logits of a finite number of actions.

    Attributes:
        network: observation -> logits.
        choices: alternatives of each choice that an action makes, where it makes several.
    """

    network: Network
    choices: tuple[int, ...] = ()

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Draw parameters."""
        return self.network.init(generator, dtype)

    def __call__(self, params: Params, observations: Float[Tensor, "*batch N O"]) -> Categorical | Choices:
        """Compute the action distribution."""
        return chosen_by(self.network(params, observations), self.choices)


def chosen_by(logits: Float[Tensor, "*batch A"], choices: tuple[int, ...]) -> Categorical | Choices:
    """Return the distribution of actions that make some choices, whose logits stand side by side."""
    return Choices.of(logits, choices) if len(choices) > 1 else Categorical(logits)


def make_policy(
    network: Network, *, choices: tuple[int, ...], initial_std: float
) -> GaussianPolicy | CategoricalPolicy:
    """Return the policy that fits an action space.

    Args:
        network: its outputs are the means of A actions, or the logits of A alternatives.
        choices: alternatives of each choice that an action makes (`EnvSpec.choices`); empty where it is numbers.
        initial_std: σ at the start, of a Gaussian policy.
    """
    if choices:
        return CategoricalPolicy(network=network, choices=choices if len(choices) > 1 else ())
    return GaussianPolicy(network=network, initial_std=initial_std)


def stack(params: Params, tasks: int) -> Params:
    """Return the parameters once per task: leading axis M, without copying."""
    return {name: value.expand(tasks, *value.shape) for name, value in params.items()}


def count(params: Params) -> int:
    """Return the number of scalars."""
    return sum(value.numel() for value in params.values())


def load_params(current: Params, stored: Params) -> Params:
    """Return stored parameters on the device of the current ones.

    Raises:
        ValueError: names or shapes differ.
    """
    expected = {name: tuple(value.shape) for name, value in current.items()}
    got = {name: tuple(getattr(value, "shape", ())) for name, value in stored.items()}
    if expected != got:
        raise ValueError(f"the stored parameters are {got}, this network has {expected}: use its own settings")
    return {name: stored[name].to(value) for name, value in current.items()}
