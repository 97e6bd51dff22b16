"""Networks told as plain data: a list of layers, each a kind with tensors and numbers, to be computed elsewhere.

What leaves this project (metarl/deployment) knows these kinds and no class of ours:

    linear        weight [out, in], bias [out]: y = W x + b
    layer-norm    weight [n], bias [n], `epsilon`
    relu, tanh, elu
    gru, lstm     weight_ih [G H, I], weight_hh [G H, H], bias_ih, bias_hh [G H]: gates in torch's order
    transformer   one moment after the other, with a cache of keys and values (`metarl.nets.memory.Transformer`)
    beside        the `first` numbers of what the network is given, and x beside them
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from metarl.errors import UserError
from metarl.nets.heads import BesideCore
from metarl.nets.memory import Core, Recurrent, Transformer
from metarl.nets.policy import MLP, NORM_EPSILON, Network
from metarl.types import Params


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer."""

    kind: str
    """What it computes: see the head of this file."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Its weights by their part in it."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """What else its kind needs."""


def of_linear(linear: nn.Linear) -> Layer:
    """Return a linear layer."""
    return Layer(kind="linear", tensors={"weight": linear.weight, "bias": linear.bias})


def of_perceptron(head: nn.Module) -> tuple[Layer, ...]:
    """Return the layers of a head (metarl/nets/heads.py).

    Raises:
        UserError: its weights come from the memory.
    """
    if isinstance(head, nn.Sequential):
        return tuple(of_linear(part) if isinstance(part, nn.Linear) else Layer(kind="tanh") for part in head)
    if isinstance(head, nn.Linear):
        return (of_linear(head),)
    raise UserError(
        "Got a run whose memory emits the weights of its policy (--core hyper), and an exported policy has fixed ones. "
        "Train with another --core, and --head-observations."
    )


def of_mlp(network: Network, params: Params) -> tuple[Layer, ...]:
    """Return the layers of a perceptron.

    Args:
        network: the perceptron.
        params: its parameters; or something else of the same names and shapes, such as a rate of each.

    Raises:
        UserError: it is something else, such as one behind an encoder of pictures.
    """
    if not isinstance(network, MLP):
        raise _unknown(network)
    layers: list[Layer] = []
    for i in range(len(network.hidden) + 1):
        # There observations are rows.
        weights = {"weight": params[f"w{i}"].mT, "bias": params[f"b{i}"]}
        layers.append(Layer(kind="linear", tensors=weights))
        if i == len(network.hidden):
            break
        if network.layer_norm:
            scale = {"weight": params[f"scale{i}"], "bias": params[f"shift{i}"]}
            layers.append(Layer(kind="layer-norm", tensors=scale, numbers={"epsilon": NORM_EPSILON}))
        layers.append(Layer(kind=network.activation))
    return tuple(layers)


def of_told(policy: tuple[Network, Params], encoder: tuple[MLP, Params] | None) -> tuple[Layer, ...]:
    """Return the layers of a policy that acts on an observation x and on z = μ(e), where both stand side by side.

    x passes the layers of μ as relu(x) and relu(-x), whose difference it is.

    Args:
        policy: π(x, z) and its parameters.
        encoder: μ, with relu, and its parameters; None where there is no e.

    Raises:
        UserError: a part of it is something else, such as one behind an encoder of pictures.
    """
    layers = of_mlp(*policy)
    if encoder is None:
        return layers
    mu = of_mlp(*encoder)
    count = sum(layer.kind == "linear" for layer in mu)
    last = mu[-1].tensors["weight"]
    seen = torch.eye(layers[0].tensors["weight"].shape[1] - len(last)).to(last)
    split = torch.cat((seen, -seen))
    # What x goes through beside each linear layer.
    ways = iter([split, *[torch.eye(len(split)).to(last)] * (count - 2), split.mT] if count > 1 else [seen])
    found: list[Layer] = []
    for layer in mu:
        if layer.kind == "linear":
            way, bias = next(ways), layer.tensors["bias"]
            weight = torch.block_diag(way, layer.tensors["weight"])
            layer = Layer(
                kind="linear", tensors={"weight": weight, "bias": torch.cat((bias.new_zeros(len(way)), bias))}
            )
        found.append(layer)
    return (*found, *layers)


def of_core(core: Core) -> tuple[Layer, ...]:
    """Return the layers of a memory.

    Raises:
        UserError: it is something else, such as one behind an encoder of pictures.
    """
    if isinstance(core, Recurrent):
        kind = "gru" if isinstance(core.cells, nn.GRU) else "lstm"
        weights = {name.removesuffix("_l0"): value for name, value in core.cells.named_parameters()}
        return Layer(kind=kind, tensors=weights), _of_norm(core.norm)
    if isinstance(core, Transformer):
        numbers = {
            "blocks": len(core.blocks),
            "heads": core.heads,
            "context": core.context,
            "epsilon": core.norm.eps,
        }
        weights = {name: value for name, value in core.named_parameters() if not name.startswith("norm.")}
        return Layer(kind="transformer", tensors=weights, numbers=numbers), _of_norm(core.norm)
    # Not its subclasses, which make something else of the features.
    if type(core) is BesideCore:
        return (*of_core(core.core), Layer(kind="beside", numbers={"first": core.shown}))
    raise _unknown(core)


def _of_norm(norm: nn.LayerNorm) -> Layer:
    weights = {"weight": norm.weight, "bias": norm.bias}
    return Layer(kind="layer-norm", tensors=weights, numbers={"epsilon": norm.eps})


def _unknown(part: object) -> UserError:
    return UserError(
        f"Got a network with a {type(part).__name__}, which an exported policy cannot compute. Where it encodes "
        "pictures, train with --no-encode-pictures: pixels are numbers as others then."
    )
