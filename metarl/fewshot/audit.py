"""The leakage audit: does anything of one split, or of a support set, stand where it must not?

It is run on any data set with classes. A check that fails is a leak, or wrong data; what is only told (an item twice
in its own class) is worth knowing and does no harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.config import to_plain
from metarl.errors import UserError
from metarl.fewshot.classes import ClassSplit, Drawn
from metarl.fewshot.data.collection import Collection
from metarl.fewshot.data.molecules import MoleculeData
from metarl.fewshot.episodes import Episodes, EpisodeShape, MetaDatasetShape, Source

MOST_EPISODES = 1_000_000
"""Looked at of each split: an hour or so of them."""
EXAMPLES = 5
"""Most examples of a finding."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        check: what would be wrong, in words.
        count: how often it was found.
        leak: whether finding it fails the audit.
        examples: some of it, in words.
    """

    check: str
    count: int
    leak: bool
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an audit found.

    Attributes:
        data: name of the data set.
        splits: split -> classes and items in it.
        episodes: looked at, for each split.
        shape: of these episodes.
        findings: of all checks, those that found nothing included.
    """

    data: str
    splits: Mapping[str, Mapping[str, int]]
    episodes: int
    shape: EpisodeShape | MetaDatasetShape
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not any(finding.leak and finding.count for finding in self.findings)

    def describe(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "data": self.data,
            "ok": self.ok,
            "splits": {name: dict(sizes) for name, sizes in self.splits.items()},
            "episodes": self.episodes,
            "shape": to_plain(self.shape),
            "findings": [to_plain(finding) for finding in self.findings],
        }


@runtime_checkable
class ClassSource(Protocol):
    """A `Source` whose episodes are drawn from classes."""

    @property
    def name(self) -> str:
        """Return the name."""
        ...

    @property
    def splits(self) -> Mapping[str, ClassSplit]:
        """Return the splits."""
        ...

    def draw(self, split: str, numbers: Sequence[int], shape: Any, seed: int) -> Drawn:
        """Return the rows of episodes."""
        ...

    def episodes(self, split: str, numbers: Sequence[int], shape: Any, seed: int) -> Episodes:
        """Return the episodes."""
        ...

    def items(self, split: str, rows: Int[Tensor, "*N"]) -> Float[Tensor, "*N *item"]:
        """Return the items of rows, as networks get them."""
        ...


def audit(
    source: Source, *, episodes: int = 100, shape: EpisodeShape | MetaDatasetShape | None = None, seed: int = 0
) -> Report:
    """Look for leaks in a data set and its episodes.

    Args:
        source: a data set with classes, or a collection of them.
        episodes: how many are drawn from each split.
        shape: of the episodes; None: 5 ways, 1 shot and 15 queries, or as many as every split can give.
        seed: of the episodes.

    Raises:
        UserError: the source has no classes, or cannot give such episodes; they are more than MOST_EPISODES.
    """
    if not 0 <= episodes <= MOST_EPISODES:
        raise UserError(f"Got --episodes {episodes}. Allowed: from 0 to {MOST_EPISODES:,} of each split.")
    parts = _class_sources(source)
    shape = shape or _fitting_shape(parts)
    # Molecules stand in several assays, and so in several splits: tasks are apart there, not items.
    shared = isinstance(source, MoleculeData)
    notes = {check: _Notes(check, leak) for check, leak in _checks(shared).items()}
    _compare_splits(parts, notes)
    for prefix, part in parts.items():
        _look_at_episodes(prefix, part, episodes, shape, seed, notes)
    sizes = {
        f"{prefix}{split}": {"classes": len(rows.names), "items": len(rows.items)}
        for prefix, part in parts.items()
        for split, rows in part.splits.items()
    }
    return Report(
        data=source.name,
        splits=sizes,
        episodes=episodes,
        shape=shape,
        findings=tuple(note.finding() for note in notes.values()),
    )


def _checks(shared: bool) -> dict[str, bool]:
    """Return check -> whether finding it is a leak."""
    return {
        "class in two splits": True,
        "origin in two splits": not shared,
        "equal items in two splits": not shared,
        "equal items in two classes": not shared,
        "equal items in one class": False,
        "origin in two classes": False,
        "item both in support and query": True,
        "item twice in an episode": True,
        "wrong label in an episode": True,
        "labels not permuted": not shared,
        "episode is not its rows": True,
    }


class _Notes:
    """Counts what one check finds."""

    def __init__(self, check: str, leak: bool) -> None:
        self.check, self.leak = check, leak
        self.count = 0
        self.examples: list[str] = []

    def add(self, example: str, count: int = 1) -> None:
        self.count += count
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)

    def finding(self) -> Finding:
        return Finding(check=self.check, count=self.count, leak=self.leak, examples=tuple(self.examples))


def _class_sources(source: Source) -> dict[str, ClassSource]:
    """Return prefix of names -> data set."""
    if isinstance(source, Collection):
        return {f"{member.name}/": member for member in source.members}
    if isinstance(source, ClassSource):
        return {"": source}
    raise UserError(
        f"Got {source.name}, which has no classes: nothing can leak between its functions. Audit a data set."
    )


def _fitting_shape(parts: Mapping[str, ClassSource]) -> EpisodeShape:
    splits = [rows for part in parts.values() for rows in part.splits.values()]
    molecules = any(isinstance(part, MoleculeData) for part in parts.values())
    smallest = min(int(rows.sizes.min()) for rows in splits)
    if smallest < 2:
        name = next(rows.names[int(rows.sizes.argmin())] for rows in splits if int(rows.sizes.min()) < 2)
        raise UserError(f"The class '{name}' has {smallest} item, and an episode needs 2. Leave the class out.")
    way = 2 if molecules else min([5, *(len(rows.names) for rows in splits)])
    return EpisodeShape(way=way, shot=1, query=min(15, smallest - 1))


# -- splits -----------------------------------------------------------------------------------------------------------


def _compare_splits(parts: Mapping[str, ClassSource], notes: Mapping[str, _Notes]) -> None:
    names: dict[str, str] = {}
    # Place of the first item with some content, or origin: split, class, words.
    contents: dict[bytes, tuple[str, str, str]] = {}
    origins: dict[str, tuple[str, str, str]] = {}
    for prefix, part in parts.items():
        for split, rows in part.splits.items():
            for name in rows.names:
                if prefix + name in names:
                    notes["class in two splits"].add(f"{prefix}{name}: {names[prefix + name]} and {split}")
                names[prefix + name] = split
            for row, (label, digest) in enumerate(zip(rows.labels.tolist(), _digests(part, rows), strict=True)):
                origin = rows.origins[row] if rows.origins else f"row {row}"
                here = (split, prefix + rows.names[label], f"{prefix}{split} {rows.names[label]} {origin}")
                _compare(contents, digest, here, notes, "equal items in two splits", "equal items in two classes")
                if rows.origins:
                    _compare(origins, prefix + origin, here, notes, "origin in two splits", "origin in two classes")


def _compare(
    first: dict[Any, tuple[str, str, str]],
    key: object,
    here: tuple[str, str, str],
    notes: Mapping[str, _Notes],
    in_splits: str,
    in_classes: str,
) -> None:
    """Note down that something stands in two places."""
    there = first.setdefault(key, here)
    if there is here:
        return
    words = f"{there[2]} = {here[2]}"
    if there[0] != here[0]:
        notes[in_splits].add(words)
    elif there[1] != here[1]:
        notes[in_classes].add(words)
    elif in_classes == "equal items in two classes":
        notes["equal items in one class"].add(words)


def _digests(part: ClassSource, rows: ClassSplit) -> Iterator[bytes]:
    """Yield a hash of every item's content."""
    if isinstance(part, MoleculeData):
        table = np.ascontiguousarray(part.table.cpu().numpy())
        of_molecule = [hashlib.blake2b(item.tobytes(), digest_size=16).digest() for item in table]
        yield from (of_molecule[row] for row in rows.items[:, 0].tolist())
        return
    items = rows.items.cpu().numpy()
    shape = repr((items.shape[1:], str(items.dtype))).encode()
    for item in items:
        yield hashlib.blake2b(shape + item.tobytes(), digest_size=16).digest()


# -- episodes ---------------------------------------------------------------------------------------------------------


def _look_at_episodes(
    prefix: str,
    part: ClassSource,
    episodes: int,
    shape: EpisodeShape | MetaDatasetShape,
    seed: int,
    notes: Mapping[str, _Notes],
) -> None:
    for split, rows in part.splits.items():
        ordered = 0
        for number in range(episodes):
            drawn = part.draw(split, [number], shape, seed)
            where = f"{prefix}{split} episode {number}"
            _look_at_rows(where, drawn, rows, notes)
            # One way has one order.
            ordered += drawn.way > 1 and _in_order(drawn, rows)
            _compare_with_rows(where, part, split, drawn, part.episodes(split, [number], shape, seed), notes)
        # One episode, or two, may be in order by chance.
        if ordered == episodes and episodes >= 20 and len(rows.names) > 1:
            notes["labels not permuted"].add(f"{prefix}{split}: in the order of the classes in all {episodes}")


def _look_at_rows(where: str, drawn: Drawn, rows: ClassSplit, notes: Mapping[str, _Notes]) -> None:
    support, query = drawn.support_rows[0].tolist(), drawn.query_rows[0].tolist()
    both = set(support) & set(query)
    if both:
        notes["item both in support and query"].add(f"{where}: row {min(both)}", len(both))
    twice = len(support) - len(set(support)) + len(query) - len(set(query))
    if twice:
        notes["item twice in an episode"].add(f"{where}: {twice} of {len(support) + len(query)}", twice)
    classes: dict[int, int] = {}
    found = zip(support + query, drawn.support_y[0].tolist() + drawn.query_y[0].tolist(), strict=True)
    for row, label in found:
        true = int(rows.labels[row])
        if classes.setdefault(label, true) != true or not 0 <= label < drawn.way:
            notes["wrong label in an episode"].add(f"{where}: row {row} of {rows.names[true]} has the label {label}")
    if len(set(classes.values())) != drawn.way:
        words = f"{where}: {len(set(classes.values()))} classes for {drawn.way} ways"
        notes["wrong label in an episode"].add(words)


def _in_order(drawn: Drawn, rows: ClassSplit) -> bool:
    """Tell if labels rise with the places of the classes, as they do where nobody permutes them."""
    classes = rows.labels.to(drawn.support_y.device)[drawn.support_rows[0]]
    in_order = classes[drawn.support_y[0].argsort()]
    return bool((in_order.diff() >= 0).all())


def _compare_with_rows(
    where: str, part: ClassSource, split: str, drawn: Drawn, found: Episodes, notes: Mapping[str, _Notes]
) -> None:
    """Check that an episode has the items and labels of the rows that were drawn for it."""
    same = (
        torch.equal(found.support.x, part.items(split, drawn.support_rows))
        and torch.equal(found.query_x, part.items(split, drawn.query_rows))
        and torch.equal(found.support.y, drawn.support_y)
        and torch.equal(found.query_y, drawn.query_y)
    )
    if not same:
        notes["episode is not its rows"].add(where)
