"""The evidence's lower bound of trials: its sums over all beliefs and transitions, estimated from some of each.

    Σ_t { Σ_i E_{z ~ q_t} log p(transition i | z) - β KL(q_t ‖ q_{t-1}) },   q_{-1} = N(0, I)

(Zintgraf et al. 2020, eq. 9). The KLs are summed exactly. Of T x L pairs of a belief and a transition some beliefs and
some transitions are taken, spread over the trial, and weighted so that the sum is right on average.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metarl.nets.policy import Normal
from metarl.ranks import Ranks


class Chance(NamedTuple):
    """What is drawn for a step of encoder and decoders on V trials."""

    rows: Tensor
    """Places of the trials in a buffer, [V]."""
    moments: Tensor
    """Where in their parts of the trial beliefs are taken, 0..1, [V, T]."""
    steps: Tensor
    """Where transitions are, 0..1, [V, S]."""
    noise: Tensor
    """Of z, standard normal, [V, T, D]."""

    def to(self, device: torch.device) -> Chance:
        """Return it on a device."""
        return Chance(*(part.to(device) for part in self))

    def of(self, ranks: Ranks) -> tuple[Chance, float]:
        """Return this rank's trials, and 1; or, where there are none left for it, some trial, and 0: it counts not."""
        own = [part[ranks.rank :: ranks.size] for part in self]
        return (Chance(*own), 1.0) if len(own[0]) else (Chance(*(part[:1] for part in self)), 0.0)


def draw(count: int, *, trials: int, moments: int, steps: int, latent: int, generator: torch.Generator) -> Chance:
    """Draw V trials of `count`, without one twice, and what is taken of each.

    Args:
        count: trials that there are.
        trials: V, fewer where there are fewer.
        moments: T.
        steps: S.
        latent: D.
        generator: where the randomness comes from.
    """
    rows = torch.randperm(count, generator=generator)[:trials]
    size = len(rows)
    return Chance(
        rows=rows,
        moments=torch.rand(size, moments, generator=generator),
        steps=torch.rand(size, steps, generator=generator),
        noise=torch.randn(size, moments, latent, generator=generator),
    )


class Bound(NamedTuple):
    """The lower bound of N trials with its sign changed: sums over all beliefs and transitions."""

    errors: dict[str, Tensor]
    """-log p but for factor and constant, by what is decoded, [N]."""
    kl: Tensor
    """Σ_t KL(q_t ‖ q_{t-1}), nats, [N]."""
    last: Normal
    """The belief behind the last step, [N, 1, D]."""

    def loss(self, kl_weight: float) -> Float[Tensor, " N"]:
        """Return what goes down; `kl_weight` is β."""
        return torch.stack(list(self.errors.values())).sum(0) + kl_weight * self.kl


def kl_to_previous(belief: Normal) -> Float[Tensor, "N moments"]:
    """Compute KL(q_t ‖ q_{t-1}) at every moment, with q_{-1} = N(0, I)."""
    before = (torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1) for x in belief)
    return belief.kl(Normal(*before))


def spread_out(
    chance: Float[Tensor, "N C"], lengths: Int[Tensor, " N"], longest: int
) -> tuple[Int[Tensor, "N S"], Float[Tensor, "N S"]]:
    """Choose C of the places 0 ... length - 1, one in each of C equal parts; all of them where there are no more.

    Args:
        chance: 0..1, where in its part each is.
        lengths: of every row.
        longest: that there can be.

    Returns:
        Places, and weights with which sums over them are, on average, those over all places.
    """
    count = chance.shape[1]
    if longest <= count:
        places = torch.arange(longest, device=chance.device).expand(len(chance), -1)
        return places, (places < lengths[:, None]).to(chance)
    parts = (torch.arange(count, device=chance.device) + chance) / count * lengths[:, None]
    places = torch.minimum(parts.long(), lengths[:, None] - 1)
    return places, (lengths / count)[:, None].to(chance).expand(-1, count)


def at(rows: Shaped[Tensor, "N L X"], places: Int[Tensor, "N S"]) -> Shaped[Tensor, "N S X"]:
    """Return the rows at some places of each of N."""
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))
