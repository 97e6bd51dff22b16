"""Convolutions by matrix products are torch's grouped convolutions, in all derivatives that a meta-gradient takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as nnf

from metarl.fewshot.parts import layers
from metarl.fewshot.parts.backbones import Backbone, Conv4, ResNet12
from metarl.fewshot.parts.conv1d import Conv1d
from metarl.fewshot.parts.norms import Moment, Norm
from metarl.fewshot.parts.products import convolve_by_products, patches
from tests.fewshot.parts.test_executors import plain_loop
from tests.helpers.stepping_learners import IMAGE, KINDS, SHAPE, TRAINED, Noise, flat, maml
from tests.helpers.toys import DOUBLE, normal

TASKS, ITEMS = 3, 2


def grouped(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return what `convolve_by_products` does, by torch's own convolution."""
    channels = x.unflatten(0, (TASKS, ITEMS)).transpose(0, 1).flatten(1, 2)
    padding = (weight.shape[-2] // 2, weight.shape[-1] // 2)
    y = nnf.conv2d(channels, weight.flatten(0, 1), padding=padding, stride=stride, groups=TASKS)
    return y.unflatten(1, (TASKS, -1)).transpose(0, 1).flatten(0, 1)


def derivatives(y: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Return first, second and third derivatives of something that bends."""
    found = []
    for order in range(3):
        here = torch.autograd.grad(y.sin().mean(), inputs, create_graph=order < 2)
        found += here
        y = torch.cat([part.flatten() for part in here])
    return found


@pytest.mark.parametrize("size", [(3, 3), (1, 1), (1, 3), (5, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_convolution_and_its_derivatives(size: tuple[int, int], stride: int) -> None:
    x = normal(TASKS * ITEMS, 2, 5, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = normal(TASKS, 3, 2, *size, seed=1).requires_grad_()
    found, expected = convolve_by_products(x, weight, stride), grouped(x, weight, stride)
    torch.testing.assert_close(found, expected)
    for ours, torchs in zip(derivatives(found, x, weight), derivatives(expected, x, weight), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-12)


def test_what_needs_no_gradient_gets_none() -> None:
    x, weight = normal(TASKS * ITEMS, 2, 5, 4), normal(TASKS, 3, 2, 3, 3, seed=1)
    of_weight = torch.autograd.grad(convolve_by_products(x, weight.requires_grad_()).square().sum(), weight)[0]
    assert of_weight.shape == weight.shape
    of_x = torch.autograd.grad(convolve_by_products(x.requires_grad_(), weight.detach()).square().sum(), x)[0]
    assert of_x.shape == x.shape


def test_patches_by_hand() -> None:
    x = torch.arange(1.0, 7.0).view(1, 1, 2, 3, 1)
    rows = patches(x, (3, 3))
    assert rows.shape == (1, 6, 9)
    assert rows[0, 0].tolist() == [0, 0, 0, 0, 1, 2, 0, 4, 5]
    assert rows[0, 4].tolist() == [1, 2, 3, 4, 5, 6, 0, 0, 0]


@pytest.fixture
def by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolve as on a GPU."""
    monkeypatch.setattr(layers, "by_products", lambda x: True)


BACKBONES: dict[str, tuple[Backbone, tuple[int, ...]]] = {
    "conv4": (Conv4(item_shape=IMAGE, width=3), IMAGE),
    "conv4, strides": (Conv4(item_shape=IMAGE, width=3, stride=True), IMAGE),
    "conv4, channels first": (Conv4(item_shape=IMAGE, width=3, channels_last=False), IMAGE),
    "resnet12": (ResNet12(item_shape=(3, 16, 16), widths=(2, 2, 2, 2)), (3, 16, 16)),
    "conv1d": (Conv1d(item_shape=(2, 37), width=3), (2, 37)),
}


@pytest.mark.parametrize("name", list(BACKBONES))
@pytest.mark.parametrize("kind", ["support", "transductive", "averages"])
def test_backbones_give_the_same_features(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, shape = BACKBONES[name]
    shared = backbone.init(torch.Generator().manual_seed(0), DOUBLE)
    # Scales of either sign.
    params = {key: value + 0.8 * normal(TASKS, *value.shape, seed=i) for i, (key, value) in enumerate(shared.items())}
    x = normal(TASKS, 4, *shape, seed=9)
    seen: list[Moment] = []
    backbone(params, x, Norm("running", seen=seen), by_task=True)
    averages = [Moment(moment.mean[0], moment.variance[0]) for moment in seen]
    options: dict[str, Any] = {
        "support": {"policy": "support", "support": 2},
        "transductive": {"policy": "transductive", "support": 2},
        "averages": {"policy": "running", "averages": averages},
    }[kind]
    expected, of_shared = backbone(params, x, Norm(**options), by_task=True), backbone(shared, x, Norm())
    monkeypatch.setattr(layers, "by_products", lambda x: True)
    again: list[Moment] = []
    torch.testing.assert_close(backbone(params, x, Norm(**options), by_task=True), expected, rtol=1e-9, atol=1e-9)
    backbone(params, x, Norm("running", seen=again), by_task=True)
    for ours, theirs in zip(again, seen, strict=True):
        torch.testing.assert_close(tuple(ours), tuple(theirs), rtol=1e-9, atol=1e-9)
    # Episodes that share parameters are convolved as ever.
    assert torch.equal(backbone(shared, x, Norm()), of_shared)


@pytest.mark.usefixtures("by_products")
@pytest.mark.parametrize("policy", TRAINED)
def test_meta_gradients_are_those_of_plain_autograd(policy: Any) -> None:
    learner = maml(policy, executor="grouped")
    episodes = Noise().episodes("train", range(3), SHAPE, 0)
    expected = plain_loop(learner, episodes)
    assert float(expected.norm()) > 0.1
    torch.testing.assert_close(flat(learner.meta_gradient(episodes)[0]), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_maml_gets_the_same_meta_gradients(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = Noise().episodes("train", range(3), SHAPE, 0)
    expected = flat(maml(executor="grouped", **KINDS[kind]).meta_gradient(episodes, 3)[0])
    monkeypatch.setattr(layers, "by_products", lambda x: True)
    found = flat(maml(executor="grouped", **KINDS[kind]).meta_gradient(episodes, 3)[0])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_cpu_convolves_in_groups() -> None:
    assert not layers.by_products(torch.zeros(1))


@pytest.mark.gpu
def test_a_gpu_convolves_by_products() -> None:
    x, weight = normal(TASKS * ITEMS, 2, 5, 4).cuda().requires_grad_(), normal(TASKS, 3, 2, 3, 3, seed=1).cuda()
    weight.requires_grad_()
    assert layers.by_products(x)
    found, expected = convolve_by_products(x, weight), grouped(x, weight, 1)
    torch.testing.assert_close(found, expected)
    for ours, torchs in zip(derivatives(found, x, weight), derivatives(expected, x, weight), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-12)
