"""What is wrong with a module is said in one line; the advice works."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from metarl.errors import UserError
from metarl.fewshot.parts.own import own_backbone
from tests.helpers.own_modules import Unruly, perceptron


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("random", "gave other features for the same items a second time"),
        ("batch", "gave an item other features when it came with others"),
        ("map", r"gave [3, 5, 3, 3] for 3 items. Give features [3, F]"),
        ("tuple", "gave tuple. Give one tensor of features"),
        ("whole", "gave numbers of the type torch.int64"),
        ("infinite", "gave NaN or infinity"),
        ("buffer", "changes its buffer 'count'"),
        ("detached", "its features have no gradient"),
        ("one", "gave [3] for 3 items"),
    ],
)
def test_what_a_module_does_wrong(wrong: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as error:
        own_backbone(Unruly(wrong), (12,))
    assert str(error.value).startswith("module Unruly ")
    assert "\n" not in str(error.value)


def test_advice_works() -> None:
    assert own_backbone(nn.Sequential(Unruly("map"), nn.Flatten()), (12,)).features == 45
    assert own_backbone(nn.Sequential(Unruly("map"), nn.AdaptiveAvgPool2d(1)), (12,)).features == 5
    assert own_backbone(Unruly("detached"), (12,), freeze=True).features == 5
    dropped = nn.Sequential(perceptron(), nn.Dropout(0.5))
    assert own_backbone(dropped, (12,)).features == 16


def test_items_of_another_shape() -> None:
    says = r"module Sequential failed on torch\.float32 items \[3, 3, 4, 4\], RuntimeError: .* of the shape \[3, 4, 4\]"
    with pytest.raises(UserError, match=says):
        own_backbone(perceptron(), (3, 4, 4))
    with pytest.raises(UserError, match=r"module Embedding failed on torch\.float32 items"):
        own_backbone(nn.Embedding(10, 4), (12,))


def test_modules_without_weights_to_take() -> None:
    lazy = nn.LazyLinear(5)
    with pytest.raises(UserError, match=r"has lazy layers .* Call it once"):
        own_backbone(lazy, (12,))
    lazy(torch.zeros(2, 12))
    assert own_backbone(lazy, (12,)).features == 5
    with pytest.raises(UserError, match="meta device"):
        own_backbone(nn.Linear(12, 5, device="meta"), (12,))
    copied = perceptron()
    copied.extra = torch.ones(3, requires_grad=True) * 2.0
    with pytest.raises(UserError, match=r"cannot be copied, RuntimeError"):
        own_backbone(copied, (12,))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused() -> None:
    scripted = torch.jit.trace(perceptron(), torch.zeros(2, 12))
    with pytest.raises(UserError, match="is a TorchScript module"):
        own_backbone(scripted, (12,))


def test_wrappers_are_taken_off() -> None:
    inner = perceptron()
    params = own_backbone(nn.DataParallel(inner), (12,)).init(torch.Generator())
    assert sorted(params) == ["backbone.1.bias", "backbone.1.weight"]
    assert sorted(own_backbone(torch.compile(inner, backend="eager"), (12,)).init(torch.Generator())) == sorted(params)
