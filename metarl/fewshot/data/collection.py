"""Several data sets as one, in the manner of Meta-Dataset: every episode comes from one of them, by its number.

Items of all members are brought to one shape: grey images become coloured, and smaller or larger ones get the size of
the first member's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData, Drawn
from metarl.fewshot.episodes import SPLITS, Episodes, EpisodeShape, MetaDatasetShape, check_split, keyed
from metarl.fewshot.form import ItemForm
from metarl.fewshot.layout import FORMS

_ROWS = ("support_rows", "support_y", "query_rows", "query_y")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A `Source` over several data sets with classes.

    A split has the members that have it: a data set with nothing but a test split is one of other domains than those
    trained on. Every episode is drawn from one of them, all equally often.

    Attributes:
        members: each with a name of its own.
        name: in reports.
    """

    members: tuple[ClassData, ...]
    name: str = ""
    outputs: int = 0

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if len(set(names)) < max(2, len(names)):
            raise UserError(
                f"Got a collection of {', '.join(names) or 'nothing'}. Give two data sets or more, each once."
            )
        ranks = {len(member.item_shape) for member in self.members}
        if ranks != {3} and len({member.item_shape for member in self.members}) > 1:
            shapes = ", ".join(f"{member.name} {member.item_shape}" for member in self.members)
            raise UserError(f"Got items of different shapes ({shapes}). Only images are brought to one shape.")
        if not self.name:
            object.__setattr__(self, "name", "+".join(names))

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of one item: most channels of a member, height and width of the first."""
        shapes = [member.item_shape for member in self.members]
        return (max(shape[0] for shape in shapes), *shapes[0][1:])

    @property
    def form(self) -> ItemForm:
        """What its items are, for `predict`.

        In training every member is scaled by its own moments; items that are of no member are scaled by those of all
        members together, each of which weighs the same. For items of one of them give `predict` that member's form.
        """
        return self._form

    @cached_property
    def _form(self) -> ItemForm:
        forms = [member.form for member in self.members]
        channels = self.item_shape[0]
        # Of one channel: the same for each that it becomes.
        means = torch.tensor([form.mean * (channels // len(form.mean)) for form in forms], dtype=torch.float64)
        spreads = torch.tensor([form.deviation * (channels // len(form.deviation)) for form in forms]).double()
        mean = means.mean(0)
        variance = (spreads.square() + means.square()).mean(0) - mean.square()
        return replace(
            forms[0],
            name=self.name,
            layout=FORMS[forms[0].kind][0],
            shape=self.item_shape,
            low=min(form.low for form in forms),
            high=max(form.high for form in forms),
            mean=tuple(mean.tolist()),
            deviation=tuple(variance.sqrt().tolist()),
        )

    def members_of(self, split: str) -> tuple[ClassData, ...]:
        """Return the members that have a split.

        Raises:
            UserError: there is no such split, or none has it.
        """
        check_split(split, [name for name in SPLITS if any(name in member.splits for member in self.members)])
        return tuple(member for member in self.members if split in member.splits)

    def most_way(self, split: str) -> int:
        """Return how many ways every episode of a split can have, whichever member it is from."""
        return min(member.most_way(split) for member in self.members_of(split))

    def episodes(
        self, split: str, numbers: Sequence[int], shape: EpisodeShape | MetaDatasetShape, seed: int
    ) -> Episodes:
        """Return episodes (see `Source`); with a `MetaDatasetShape` for one number at a time."""
        return self.gather(split, self.draw(split, numbers, shape, seed))

    def draw(self, split: str, numbers: Sequence[int], shape: EpisodeShape | MetaDatasetShape, seed: int) -> Drawn:
        """Draw the rows of episodes, counted through all members of the split; the rest as in `episodes`."""
        members = self.members_of(split)
        of_member = (keyed(numbers, 1, seed, split, "member")[:, 0] % len(members)).tolist()
        places: list[int] = []
        parts: list[Drawn] = []
        for number, (member, first) in enumerate(zip(members, _firsts(members, split), strict=True)):
            own = [place for place, chosen in enumerate(of_member) if chosen == number]
            if own:
                places += own
                part = member.draw(split, [numbers[place] for place in own], shape, seed)
                parts.append(_moved(part, first))
        order = torch.tensor(places).argsort()
        return Drawn(**{name: _cat([getattr(part, name) for part in parts], order) for name in _ROWS}, way=parts[0].way)

    def gather(self, split: str, drawn: Drawn) -> Episodes:
        """Return the episodes of drawn rows."""
        members = self.members_of(split)
        firsts = _firsts(members, split)
        of_member = torch.bucketize(drawn.support_rows[:, 0].cpu().contiguous(), torch.tensor(firsts), right=True) - 1
        places: list[Tensor] = []
        parts: list[Episodes] = []
        for number in of_member.unique().tolist():
            own = torch.nonzero(of_member == number)[:, 0]
            part = Drawn(**{name: getattr(drawn, name)[own] for name in _ROWS}, way=drawn.way)
            places.append(own)
            parts.append(self._fitted(members[number].gather(split, _moved(part, -firsts[number]))))
        return _joined(parts, torch.cat(places).argsort())

    def bounds(self, split: str) -> Sequence[int]:
        """Return where the rows of its members begin, and where those of the last one end."""
        members = self.members_of(split)
        return *_firsts(members, split), sum(len(member.split(split).items) for member in members)

    def _fitted(self, episodes: Episodes) -> Episodes:
        return replace(
            episodes,
            support=replace(episodes.support, x=self._fit(episodes.support.x)),
            query_x=self._fit(episodes.query_x),
        )

    def _fit(self, x: Float[Tensor, "M n *item"]) -> Float[Tensor, "M n *other"]:
        """Bring items to the collection's shape."""
        shape = self.item_shape
        if tuple(x.shape[2:]) == shape:
            return x
        flat = x.flatten(0, 1)
        if tuple(flat.shape[2:]) != shape[1:]:
            flat = interpolate(flat, size=list(shape[1:]), mode="bilinear", antialias=True, align_corners=False)
        if flat.shape[1] == 1:
            flat = flat.expand(-1, shape[0], -1, -1)
        if flat.shape[1] != shape[0]:
            raise UserError(
                f"Got images of {flat.shape[1]} and of {shape[0]} channels. Only grey ones become coloured."
            )
        return flat.unflatten(0, x.shape[:2])

    def to(self, device: torch.device) -> Collection:
        """Return it with all items on `device`."""
        return replace(self, members=tuple(member.to(device) for member in self.members))

    def describe(self) -> Mapping[str, Any]:
        """Return name, the descriptions of the members, and a fingerprint of them all."""
        return {
            "name": self.name,
            "item_shape": list(self.item_shape),
            "members": [dict(member.describe()) for member in self.members],
            "fingerprint": self.fingerprint,
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the members' content, in their order."""
        return hashlib.sha256(repr([member.fingerprint for member in self.members]).encode()).hexdigest()


def _firsts(members: Sequence[ClassData], split: str) -> list[int]:
    """Return where the rows of every member begin."""
    sizes = [len(member.split(split).items) for member in members]
    return [sum(sizes[:number]) for number in range(len(sizes))]


def _moved(drawn: Drawn, by: int) -> Drawn:
    """Return the same with all rows moved."""
    return replace(drawn, support_rows=drawn.support_rows + by, query_rows=drawn.query_rows + by)


def _cat(tensors: Sequence[Tensor], order: Tensor) -> Tensor:
    return torch.cat(list(tensors))[order.to(tensors[0].device)]


def _joined(parts: Sequence[Episodes], order: Tensor) -> Episodes:
    """Return the episodes of several data sets in the order of their numbers."""
    support = replace(
        parts[0].support,
        x=_cat([part.support.x for part in parts], order),
        y=_cat([part.support.y for part in parts], order),
    )
    return Episodes(
        support=support,
        query_x=_cat([part.query_x for part in parts], order),
        query_y=_cat([part.query_y for part in parts], order),
    )
