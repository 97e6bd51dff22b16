"""Splits of classes, or tasks, where no published list says them."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from metarl.errors import UserError
from metarl.fewshot.episodes import SPLITS, check_split, keyed

FRACTIONS = (0.64, 0.16, 0.20)
"""Parts of the classes that go to train, validation and test: those of miniImageNet."""


def shuffled(count: int, *key: object) -> list[int]:
    """Return the numbers from 0 to count - 1 in an order that the key determines."""
    keys = keyed(range(count), 1, "split", *key)[:, 0].tolist()
    return sorted(range(count), key=keys.__getitem__)


def split_at_random(
    what: str, names: Sequence[str], seed: int, fractions: Collection[float] = FRACTIONS
) -> dict[str, list[int]]:
    """Split classes at random: by seed and number, the same everywhere.

    Args:
        what: is split, in words for errors: `classes of folder`.
        names: of the classes.
        seed: another one gives another split.
        fractions: of train, validation and test.

    Returns:
        Split -> places of its classes, ascending. Train and test have at least one, validation where there are enough.

    Raises:
        UserError: fewer than two classes, or fractions that do not add up to 1.
    """
    if len(names) < 2:
        raise UserError(f"Got {len(names)} {what}. Training and testing need different ones; give at least 2.")
    if not _is_fractions(fractions):
        raise UserError(f"Got the fractions {fractions}. Give three that add up to 1, for train, validation and test.")
    order = shuffled(len(names), seed)
    _, second, third = fractions
    test = max(1, round(third * len(names)))
    validation = min(round(second * len(names)), len(names) - test - 1)
    sizes = (len(names) - test - validation, validation, test)
    ends = [sum(sizes[: i + 1]) for i in range(3)]
    parts = {
        split: sorted(order[end - size : end]) for split, size, end in zip(SPLITS, sizes, ends, strict=True) if size
    }
    return parts


def _is_fractions(given: Any) -> bool:
    """Return whether there are three finite numbers that add up to 1, those of train and test above 0."""
    if not isinstance(given, Collection) or isinstance(given, str) or len(given) != 3:
        return False
    if not all(isinstance(part, float | int | np.number) and math.isfinite(part) for part in given):
        return False
    train, validation, test = map(float, given)
    return abs(train + validation + test - 1.0) <= 1e-6 and validation >= 0.0 and min(train, test) > 0.0


def split_by_list(
    what: str, names: Sequence[str], lists: Mapping[str, Collection[str | int]], *, known: Sequence[str | int]
) -> dict[str, list[int]]:
    """Split classes by given lists; classes that no list has are left out.

    Args:
        what: as in `split_at_random`.
        names: of the classes.
        lists: split -> names, or ids, of its classes.
        known: what the lists may hold, one for each class.

    Raises:
        UserError: a list names what does not exist, or what another list has too, or is empty.
    """
    if not isinstance(lists, Mapping):
        raise UserError(f"Got splits of the type {type(lists).__name__}. Give a dict: split -> its {what}.")
    places = {name: place for place, name in enumerate(known)}
    owner: dict[str | int, str] = {}
    for split, listed in lists.items():
        check_split(split)
        if isinstance(listed, str) or not isinstance(listed, Collection):
            raise UserError(f"Got the split '{split}' as a {type(listed).__name__}. Give a list of its {what}.")
        if not len(listed):
            raise UserError(f"The split '{split}' of the {what} is empty. Leave it out, or give it some.")
        for name in listed:
            if not isinstance(name, Hashable) or name not in places:
                raise UserError(
                    f"The split '{split}' names {name!r}, which is not among the {len(names)} {what} (the first is "
                    f"{known[0]!r}). Correct the list."
                )
            if name in owner:
                raise UserError(f"{name!r} stands in the splits '{owner[name]}' and '{split}'. Give it to one.")
            owner[name] = split
    return {split: sorted(places[name] for name in listed) for split, listed in lists.items()}
