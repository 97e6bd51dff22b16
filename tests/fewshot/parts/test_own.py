"""Backbones of one's own: weights, forms, and what they are refused for."""

from __future__ import annotations

import copy
import pickle
from typing import Any, cast

import pytest
import torch
from torch import nn

from metarl.errors import UserError
from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.learners import config_class, make
from metarl.fewshot.parts.backbones import MlpBackbone
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.parts.norms import Norm
from metarl.fewshot.parts.own import Given, ModuleBackbone, name_of, own_backbone
from metarl.fewshot.parts.trying import near
from metarl.seeding import Streams
from tests.helpers.own_modules import IMAGE, Attending, Recurrent, Unruly, convolutions, filled, perceptron
from tests.helpers.toys import normal


def learner_of(name: str, backbone: Any, **options: Any) -> Any:
    setting = Setting(shape=EpisodeShape(way=3, shot=2, query=2), backbone=backbone, classes=9)
    return make(name, config_class(name)(**options), setting, Streams(0), torch.device("cpu"))


@pytest.mark.parametrize("module", [perceptron(), filled(Recurrent())], ids=["perceptron", "lstm"])
def test_all_forms_are_what_the_module_gives(module: nn.Module) -> None:
    own = own_backbone(module, (12,))
    params = own.init(torch.Generator())
    x = normal(2, 5, 12).float()
    one = own(params, x[1], Norm())
    torch.testing.assert_close(one, module(x[1]).detach())
    torch.testing.assert_close(own(params, x, Norm())[1], one)
    stacked = {name: torch.stack((torch.zeros_like(value), value)) for name, value in params.items()}
    torch.testing.assert_close(own(stacked, x, Norm(), by_task=True)[1], one)


def test_the_users_module_is_not_changed() -> None:
    module = cast(nn.Sequential, convolutions().train())
    before = copy.deepcopy(module.state_dict())
    own = own_backbone(module, IMAGE)
    params = own.init(torch.Generator())
    own(params, normal(4, *IMAGE).float(), Norm())
    for value in params.values():
        value += 1.0
    assert module.training
    assert isinstance(module[1], nn.BatchNorm2d)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    # Nor does the module change the backbone, nor one init the next.
    again = own.init(torch.Generator())
    assert all(torch.equal(value, before[name.removeprefix("backbone.")]) for name, value in again.items())


def test_what_needs_no_gradient_stays() -> None:
    module = cast(nn.Sequential, convolutions())
    module[0].requires_grad_(False)
    own = own_backbone(module, IMAGE)
    assert "backbone.0.weight" not in own.init(torch.Generator())
    assert "backbone.4.weight" in own.init(torch.Generator())
    frozen = own_backbone(module, IMAGE, freeze=True)
    assert frozen.init(torch.Generator()) == {}
    assert frozen.norms == 0
    # With the statistics that its norms came with.
    x = normal(4, *IMAGE).float()
    torch.testing.assert_close(frozen({}, x, Norm()), module.eval()(x.clone()).detach())


def test_other_types_and_tied_weights() -> None:
    half = perceptron().half()
    params = own_backbone(half, (12,)).init(torch.Generator())
    assert {value.dtype for value in params.values()} == {torch.float32}
    tied = nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12))
    cast(nn.Linear, tied[2]).weight = cast(nn.Linear, tied[0]).weight
    own = own_backbone(tied, (12,))
    params = own.init(torch.Generator())
    assert sorted(params) == ["backbone.0.bias", "backbone.0.weight", "backbone.2.bias"]
    torch.testing.assert_close(own(params, torch.ones(2, 12), Norm()), tied(torch.ones(2, 12)).detach())


def test_a_module_may_change_its_items_in_place() -> None:
    own = own_backbone(Unruly("input"), (12,))
    x = normal(4, 12).float()
    before = x.clone()
    first = own(own.init(torch.Generator()), x, Norm())
    assert torch.equal(x, before)
    torch.testing.assert_close(own(own.init(torch.Generator()), x, Norm()), first)


def test_a_callable_draws_weights_by_the_seed() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (
        own_backbone(lambda: nn.Linear(12, 5), (12,), seed=seed).init(torch.Generator()) for seed in (0, 0, 1)
    )
    assert torch.equal(first["backbone.weight"], again["backbone.weight"])
    assert not torch.equal(first["backbone.weight"], other["backbone.weight"])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert own_backbone(Recurrent, (12,)).features == 8
    with pytest.raises(UserError, match=r"module Unruly failed, TypeError: .* without arguments"):
        own_backbone(Unruly, (12,))
    with pytest.raises(UserError, match=r"returned int\. It must return a torch module"):
        own_backbone(lambda: 5, (12,))


def test_names_go_with_what_they_name() -> None:
    assert [name_of(thing) for thing in (perceptron(), Recurrent, Recurrent())] == [
        "module Sequential",
        "module Recurrent",
        "module Recurrent",
    ]
    with pytest.raises(UserError, match="Got a backbone of the type int"):
        name_of(3)
    given = Given("module Recurrent", Recurrent)
    assert given == "module Recurrent"
    assert pickle.loads(pickle.dumps(given)).thing is copy.copy(given).thing is Recurrent


def test_an_object_that_is_a_backbone() -> None:
    thing = MlpBackbone(item_shape=(12,), hidden=(5,))
    own = own_backbone(thing, (12,))
    params = own.init(torch.Generator().manual_seed(0))
    assert all(name.startswith("backbone.") for name in params)
    x = normal(2, 4, 12).float()
    # What a head has under the same name is none of its own.
    theirs = thing.init(torch.Generator().manual_seed(0))
    torch.testing.assert_close(own({**params, "w0": torch.zeros(3)}, x, Norm()), thing(theirs, x, Norm()))
    with pytest.raises(UserError, match=r"items of the shape \(12,\), and the data has \(11,\)"):
        own_backbone(thing, (11,))
    with pytest.raises(UserError, match="Give the module itself"):
        own_backbone(thing, (12,), freeze=True)

    flat = own_backbone(MlpBackbone(item_shape=(1, 12), hidden=(5,)), (12,))
    torch.testing.assert_close(flat(params, x, Norm()), own(params, x, Norm()))

    class Wrong(MlpBackbone):
        @property
        def features(self) -> int:
            return 3

    with pytest.raises(UserError, match=r"gave \(3, 5\) for items \(3, 12\)\. Give \[\.\.\., 3\]"):
        own_backbone(Wrong(item_shape=(12,), hidden=(5,)), (12,))


def test_second_derivatives_that_are_missing_are_told_with_what_to_do() -> None:
    own = own_backbone(filled(Attending()), (12,))
    says = r"module Attending has no second derivatives, .*\. Use --first-order, or --adapts head\."
    with pytest.raises(UserError, match=says):
        learner_of("maml", own)
    with pytest.raises(UserError, match="Use maml --first-order, or reptile"):
        learner_of("imaml", own)
    for name, options in (("maml", {"first_order": True}), ("maml", {"adapts": "head"}), ("reptile", {})):
        assert learner_of(name, own, **options).name == name
    assert own_backbone(filled(Recurrent()), (12,)).once == ""


def test_executors() -> None:
    linear, recurrent = own_backbone(perceptron(), (12,)), own_backbone(filled(Recurrent()), (12,))
    assert learner_of("maml", linear).executor == "loop"
    assert learner_of("maml", linear, executor="vmap").executor == "vmap"
    with pytest.raises(UserError, match=r"module Recurrent does not work under vmap, .*\. Use --executor loop\."):
        learner_of("maml", recurrent, executor="vmap")
    with pytest.raises(UserError, match="Got the executor 'compiled' for module Sequential"):
        learner_of("maml", linear, executor="compiled")
    with pytest.raises(UserError, match="--step-norm, and one's own backbone"):
        learner_of("maml", own_backbone(convolutions(), IMAGE), step_norm=True)


def test_a_backbone_is_known_again_by_what_it_computes() -> None:
    own, same = (own_backbone(convolutions(), IMAGE) for _ in range(2))
    params = own.init(torch.Generator())
    stored = own.state_dict(params)
    same.load_state_dict(stored, params)
    assert isinstance(same, ModuleBackbone)
    assert near(same.state_dict(params)["features"], stored["features"])
    module = cast(nn.Sequential, convolutions())
    module[2] = nn.LeakyReLU(0.3)
    with pytest.raises(ValueError, match="computes other features than it did"):
        own_backbone(module, IMAGE).load_state_dict(stored, params)
    frozen = own_backbone(perceptron(), (12,), freeze=True)
    with pytest.raises(ValueError, match=r"has other weights than module Sequential had then, such as 1\."):
        own_backbone(perceptron(12, 5), (12,), freeze=True).load_state_dict(frozen.state_dict({}), {})
