"""Splits that are no splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from metarl.errors import UserError
from metarl.fewshot.data import splitting

# Their types are checked in tests, and not where they are used.
at_random: Any = getattr(splitting.split_at_random, "__wrapped__", splitting.split_at_random)
by_list: Any = getattr(splitting.split_by_list, "__wrapped__", splitting.split_by_list)


@pytest.mark.parametrize(
    "fractions",
    [(np.nan, 0.5, 0.5), (np.inf, 0.5, 0.5), (-0.2, 0.6, 0.6), (1.2, 0.0, -0.2), (0.5, 0.5), 0.5, "abc", ("a", 0, 1)],
)
def test_fractions_are_three_that_add_up_to_1(fractions: Any) -> None:
    with pytest.raises(UserError, match=r"Got the fractions .* Give three that add up to 1"):
        at_random("classes of mine", ["a", "b", "c"], 0, fractions)


def test_fractions_of_numpy_are_taken() -> None:
    assert list(at_random("x", list("abcde"), 0, np.array([0.6, 0.0, 0.4]))) == ["train", "test"]


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        (["train"], r"Got splits of the type list\. Give a dict: split -> its classes of mine"),
        ({"train": 5}, r"Got the split 'train' as a int\. Give a list"),
        ({"train": "012"}, r"as a str\. Give a list"),
        ({"train": []}, "is empty"),
        ({"train": [[0]]}, r"names \[0\], which is not among"),
        ({"train": ["a", "a"]}, "stands in the splits 'train' and 'train'"),
    ],
)
def test_splits_are_lists_of_classes(splits: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        by_list("classes of mine", ["a", "b"], splits, known=["a", "b"])
