"""Memories: recurrent cores by name, with one interface. They turn what was met so far into features.

    gru           gated recurrent units (default), with layer norm on what they give
    lstm          long short-term memory, with layer norm on what it gives
    transformer   causal self-attention over everything met in the trial, positions learned

A core is used in two ways that give the same features: `step`, one moment in B worlds, while acting; and `forward`,
whole trials in one pass from an empty memory, while learning. Trials are never cut, so there are no states to be stored
and no masks: what stands after the end of a trial has no influence on what stands before it.

What a core remembers is a value: `step` returns a new one, and an earlier one stays good, also to go on from in another
way. Weights come from a passed generator; torch's global one is left alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, relu, scaled_dot_product_attention

from metarl.errors import UserError

Layer = TypeVar("Layer", bound=nn.Module)

CoreName = Literal["gru", "lstm", "transformer"]
Memory = tuple[Tensor, ...]
"""What B worlds remember; every tensor has a leading axis B."""

HEADS = 2
"""Attention heads of a transformer; one where its width cannot be divided."""
FIRST_ROOM = 32
"""Moments for which a new key-value cache has room; it doubles when it is full."""


def blank(kind: type[Layer], *sizes: int, **options: Any) -> Layer:
    """Return a layer whose weights are still to be drawn: its constructor would take torch's global generator."""
    return kind(*sizes, **options, device="meta").to_empty(device="cpu")


class Core(nn.Module, ABC):
    """A memory core: inputs [I] at every moment to features [H].

    Attributes:
        width: H.
        steady: whether `step` is the same operations at every moment and takes no decision from a tensor.
    """

    width: int
    steady: bool = False

    @abstractmethod
    def begin(self, worlds: int) -> Memory:
        """Return the memory of worlds that have met nothing."""

    @abstractmethod
    def step(
        self, inputs: Float[Tensor, "B I"], memory: Memory, waiting: Bool[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B H"], Memory]:
        """Take in one moment, without gradients.

        Args:
            inputs: one row a world.
            memory: what the worlds remember.
            waiting: worlds whose memory stays as it is; None for none.

        Returns:
            Features (those of waiting worlds mean nothing), and the memory after.
        """

    @abstractmethod
    def forward(self, inputs: Float[Tensor, "N L I"]) -> Float[Tensor, "N L H"]:
        """Compute the features at all L moments of N whole trials."""


class Recurrent(Core):
    """GRU or LSTM: a hidden state of fixed size."""

    steady = True

    def __init__(
        self, kind: Literal["gru", "lstm"], inputs: int, width: int, context: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.width = width
        self.cells = blank(nn.GRU if kind == "gru" else nn.LSTM, inputs, width, batch_first=True)
        self.norm = nn.LayerNorm(width)
        with torch.no_grad():
            for name, weight in self.cells.named_parameters():
                if name.startswith("bias"):
                    weight.zero_()
                else:
                    # One orthogonal block for every gate.
                    for gate in weight.split(width):
                        nn.init.orthogonal_(gate, generator=generator)
            # The units begin with memories of 1 to `context` moments (Tallec & Ollivier 2018, chrono initialisation):
            # with biases of 0 all of them would forget within a few, and learn slowly to count.
            spans = 1.0 + max(context - 2, 0) * torch.rand(width, generator=generator)
            gates = self.cells.get_parameter("bias_ih_l0").split(width)
            # Second in both: the gate that keeps what was there.
            gates[1].copy_(spans.log())
            if kind == "lstm":
                gates[0].copy_(-spans.log())

    def begin(self, worlds: int) -> Memory:
        """Return zeros."""
        zero = self.norm.weight.new_zeros(worlds, self.width)
        return (zero,) if isinstance(self.cells, nn.GRU) else (zero, zero)

    @torch.no_grad()
    def step(
        self, inputs: Float[Tensor, "B I"], memory: Memory, waiting: Bool[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B H"], Memory]:
        """Take in one moment."""
        cell = _gru if isinstance(self.cells, nn.GRU) else _lstm
        after = cell(inputs, memory, *self.cells.parameters())
        features = self.norm(after[0])
        if waiting is not None:
            after = tuple(torch.where(waiting[:, None], old, new) for old, new in zip(memory, after, strict=True))
        return features, after

    def forward(self, inputs: Float[Tensor, "N L I"]) -> Float[Tensor, "N L H"]:
        """Compute the features of whole trials by the fused kernel."""
        return self.norm(self.cells(inputs)[0])


# torch.gru_cell and torch.lstm_cell are a dozen operations each on a CPU; these are fewer, in place.


def _gru(
    inputs: Tensor, memory: Memory, into: Tensor, within: Tensor, into_bias: Tensor, within_bias: Tensor
) -> Memory:
    (hidden,) = memory
    both = 2 * hidden.shape[1]
    gates, inner = linear(inputs, into, into_bias), linear(hidden, within, within_bias)
    reset, keep = gates[:, :both].add_(inner[:, :both]).sigmoid_().chunk(2, dim=1)
    new = _tanh_(gates[:, both:].addcmul_(reset, inner[:, both:]))
    return (torch.lerp(new, hidden, keep),)


def _lstm(
    inputs: Tensor, memory: Memory, into: Tensor, within: Tensor, into_bias: Tensor, within_bias: Tensor
) -> Memory:
    hidden, cell = memory
    gates = linear(inputs, into, into_bias + within_bias).addmm_(hidden, within.t())
    admit, keep, new, show = gates.chunk(4, dim=1)
    cell = torch.addcmul(keep.sigmoid_() * cell, admit.sigmoid_(), _tanh_(new))
    return show.sigmoid_() * _tanh_(cell.clone()), cell


def _tanh_(x: Tensor) -> Tensor:
    """Compute tanh in place, by the logistic function, which takes a CPU a fifth of the time."""
    return x.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)


class Transformer(Core):
    """Causal self-attention over the whole trial.

    Every moment is embedded together with the one before it. An action and its reward come a moment after the
    observation that they were given to: with both in one place, a single layer finds what was done and met in a
    situation like the present one. Without, a first layer would have to learn to look one moment back.

    Attention is half as wide as the features: so a training pass costs no more than a GRU's of the same width, up to
    200 moments (`metarl bench rl2`), and the cache is half as large.

    While acting, keys and values of earlier moments are kept, so that a step costs O(moments so far). The memory is
    (position, moments written, inputs of the moment before, keys and values of every layer). Keys and values are
    written in place: a step copies them first if another step has gone on from the same memory before. A world that
    waits writes its next moment over the last one.

    Args:
        inputs: I.
        width: H.
        layers: blocks of attention and a two-layer network.
        context: moments of the longest trial.
        generator: draws the initial weights.
    """

    def __init__(self, inputs: int, width: int, layers: int, context: int, generator: torch.Generator) -> None:
        super().__init__()
        self.width = width
        self.attention = max(1, width // 2)
        self.heads = math.gcd(HEADS, self.attention)
        self.context = context
        self.inputs = inputs
        self.embed = blank(nn.Linear, 2 * inputs, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.ModuleList([Block(width, self.attention, self.heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        with torch.no_grad():
            self.positions.normal_(0.0, 0.02, generator=generator)
            for part in self.modules():
                if isinstance(part, nn.Linear):
                    nn.init.xavier_uniform_(part.weight, generator=generator)
                    part.bias.zero_()

    def begin(self, worlds: int) -> Memory:
        """Return empty caches."""
        position = torch.zeros(worlds, dtype=torch.long, device=self.positions.device)
        room = min(FIRST_ROOM, self.context)
        size = (worlds, self.heads, room, self.attention // self.heads)
        before = self.positions.new_zeros(worlds, self.inputs)
        caches = (self.positions.new_zeros(size) for _ in range(2 * len(self.blocks)))
        return (position, position.clone(), before, *caches)

    @torch.no_grad()
    def step(
        self, inputs: Float[Tensor, "B I"], memory: Memory, waiting: Bool[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B H"], Memory]:
        """Take in one moment.

        Raises:
            UserError: the trial is longer than the context.
        """
        position, written, before, *caches = memory
        last = int(position.max())
        if last >= self.context:
            raise UserError(
                f"this transformer remembers {self.context} steps, those of the trials that it was trained on, and "
                "the trial goes on: evaluate fewer or shorter episodes (--steps, --horizon), or train with more "
                "--episodes"
            )
        ahead = position + 1 if waiting is None else position + (~waiting).long()
        if torch.equal(position, written):
            written.copy_(ahead)
        else:
            caches = [cache.clone() for cache in caches]
            written = ahead.clone()
        if last >= caches[0].shape[2]:
            caches = [self._more_room(cache) for cache in caches]
        x = (self.embed(torch.cat((inputs, before), dim=-1)) + self.positions[position])[:, None]
        where = None if int(position.min()) == last else position
        for block, keys, values in zip(self.blocks, caches[::2], caches[1::2], strict=True):
            assert isinstance(block, Block)
            x = block.step(x, keys, values, last, where)
        before = inputs if waiting is None else torch.where(waiting[:, None], before, inputs)
        return self.norm(x.squeeze(1)), (ahead, written, before, *caches)

    def _more_room(self, cache: Float[Tensor, "B heads R D"]) -> Float[Tensor, "B heads S D"]:
        room = min(cache.shape[2], self.context - cache.shape[2])
        return torch.cat((cache, torch.zeros_like(cache[:, :, :room])), dim=2)

    def forward(self, inputs: Float[Tensor, "N L I"]) -> Float[Tensor, "N L H"]:
        """Compute the features of whole trials in one parallel pass.

        Raises:
            UserError: the trials are longer than the context.
        """
        length = inputs.shape[1]
        if length > self.context:
            raise UserError(f"this transformer remembers {self.context} steps, the trials have {length}")
        before = torch.cat((torch.zeros_like(inputs[:, :1]), inputs[:, :-1]), dim=1)
        x = self.embed(torch.cat((inputs, before), dim=-1)) + self.positions[:length]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def remembered(agent: object) -> int | None:
    """Return how many steps of a trial an agent's network can remember; None where there is no end.

    Args:
        agent: its network is looked for as `network`.
    """
    network = getattr(agent, "network", None)
    modules = network.modules() if isinstance(network, nn.Module) else ()
    return min((module.context for module in modules if isinstance(module, Transformer)), default=None)


class Block(nn.Module):
    """Attention, then two layers on every moment by itself; each normalised before and added to what was there."""

    def __init__(self, width: int, attention: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = blank(nn.Linear, width, 3 * attention)
        self.mix = blank(nn.Linear, attention, width)
        self.network_norm = nn.LayerNorm(width)
        self.first = blank(nn.Linear, width, width)
        self.second = blank(nn.Linear, width, width)

    def _by_head(self, x: Float[Tensor, "N L H"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, [N, heads, L, D]."""
        joined = self.queries_keys_values(self.attention_norm(x)).chunk(3, dim=-1)
        queries, keys, values = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in joined)
        return queries, keys, values

    def _onwards(self, x: Float[Tensor, "N L H"], attended: Float[Tensor, "N heads L D"]) -> Float[Tensor, "N L H"]:
        x = x + self.mix(attended.transpose(1, 2).flatten(2))
        return x + self.second(relu(self.first(self.network_norm(x))))

    def forward(self, x: Float[Tensor, "N L H"]) -> Float[Tensor, "N L H"]:
        """Compute all moments."""
        return self._onwards(x, scaled_dot_product_attention(*self._by_head(x), is_causal=True))

    def step(
        self,
        x: Float[Tensor, "B 1 H"],
        keys: Float[Tensor, "B heads R D"],
        values: Float[Tensor, "B heads R D"],
        last: int,
        position: Int[Tensor, " B"] | None,
    ) -> Float[Tensor, "B 1 H"]:
        """Compute one moment, and write its key and value into the caches.

        Args:
            x: what is known of the moment.
            keys: of earlier moments.
            values: of earlier moments.
            last: the latest position of a world.
            position: of each world; None where all are at `last`.
        """
        query, key, value = self._by_head(x)
        seen = slice(0, last + 1)
        mask = None
        if position is None:
            keys[:, :, last], values[:, :, last] = key[:, :, 0], value[:, :, 0]
        else:
            worlds = torch.arange(len(x), device=x.device)
            keys[worlds, :, position], values[worlds, :, position] = key[:, :, 0], value[:, :, 0]
            mask = (torch.arange(last + 1, device=x.device) <= position[:, None])[:, None, None]
        return self._onwards(
            x, scaled_dot_product_attention(query, keys[:, :, seen], values[:, :, seen], attn_mask=mask)
        )


def make_core(
    name: CoreName, *, inputs: int, width: int, layers: int, context: int, generator: torch.Generator
) -> Core:
    """Return a core with fresh weights.

    Args:
        name: `gru`, `lstm` or `transformer`.
        inputs: I.
        width: H.
        layers: of a transformer; the recurrent cores have one.
        context: moments of the longest trial.
        generator: draws the weights.
    """
    if name == "transformer":
        return Transformer(inputs, width, layers, context, generator)
    return Recurrent(name, inputs, width, context, generator)
