"""A network's weights in a checkpoint."""

from __future__ import annotations

from torch import nn

from metarl.types import Params


def network_state(network: nn.Module) -> Params:
    """Return copies of the weights, on the CPU: an optimiser works in place."""
    return {name: value.to("cpu", copy=True) for name, value in network.state_dict().items()}


def load_network(network: nn.Module, stored: Params, name: str = "network") -> None:
    """Bring a network to stored weights.

    Raises:
        ValueError: they do not fit; it says that the `name` does not.
    """
    try:
        network.load_state_dict(stored)
    except RuntimeError as error:
        raise ValueError(f"the stored {name} does not fit: {error}") from error
