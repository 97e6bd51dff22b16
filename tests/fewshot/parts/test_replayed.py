"""Meta-gradients that are replayed are those that are computed anew, with a recorder in the place of CUDA's graphs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot.learners import maml as learner_module
from metarl.fewshot.learners.maml import Maml, MamlConfig, _data
from metarl.fewshot.parts import layers
from metarl.fewshot.parts.backbones import MlpBackbone
from metarl.fewshot.parts.executors import MetaGradient
from metarl.fewshot.parts.own import ModuleBackbone
from metarl.fewshot.parts.replayed import Replayed
from metarl.launches import Launches
from metarl.seeding import Streams
from metarl.types import Params
from tests.helpers.recorder import Recorder
from tests.helpers.stepping_learners import IMAGE, KINDS, SHAPE, Noise, flat, maml, setting


def doubled(params: Params, data: Params) -> dict[str, Tensor]:
    return {"sum": params["a"] + data["x"], "twice": 2.0 * data["x"]}


def test_a_function_is_captured_once_for_each_form_of_its_arguments() -> None:
    recorder = Recorder()
    replayed = Replayed(doubled, Launches(recorder))
    kept = []
    for number in range(6):
        a, x = torch.full((3,), float(number)), torch.arange(3.0) * number
        found = replayed({"a": a}, {"x": x})
        kept.append((found, a + x, 2.0 * x))
        a.zero_()
    # What was returned is not written to by later calls.
    for found, total, twice in kept:
        assert torch.equal(found["sum"], total)
        assert torch.equal(found["twice"], twice)
    assert (recorder.captures, recorder.replays) == (1, 4)
    for _ in range(4):
        # Arguments without memory of their own are arguments too.
        found = replayed({"a": torch.ones(2)}, {"x": torch.ones(1).expand(2)})
        assert found["sum"].tolist() == [2.0, 2.0]
    assert recorder.captures == 2


def test_a_function_that_looks_runs_as_it_is() -> None:
    def looking(params: Params, data: Params) -> Tensor:
        return params["a"] * float(data["x"].sum())

    recorder = Recorder()
    replayed = Replayed(looking, Launches(recorder))
    for number in range(5):
        found = replayed({"a": torch.ones(2)}, {"x": torch.full((2,), float(number))})
        assert found.tolist() == [2.0 * number] * 2
    assert recorder.captures == 0


@pytest.mark.parametrize("kind", KINDS)
def test_meta_gradients_are_replayed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "by_products", lambda x: True)
    learner, recorder = maml(executor="grouped", **KINDS[kind]), Recorder()
    every_step = bool(KINDS[kind].get("multi_step_updates"))
    second_order = not KINDS[kind].get("first_order")
    objective = learner._objective(3, second_order=second_order, every_step=every_step)
    plain = MetaGradient(objective, "grouped", 2000)
    replayed = MetaGradient(objective, "grouped", 2000, Launches(recorder))
    for number in range(5):
        episodes = Noise().episodes("train", range(2 * number, 2 * number + 2), SHAPE, 0)
        data = _data(episodes)
        if every_step:
            data["weights"] = torch.full((2, 2), 0.1 * number, dtype=torch.float64)
        expected, found = plain(learner.params, data), replayed(learner.params, data)
        assert torch.equal(flat(found[0]), flat(expected[0]))
        assert torch.equal(found[1], expected[1])
        assert torch.equal(found[2], expected[2])
        with torch.no_grad():
            for value in learner.params.values():
                value.mul_(1.1)
    assert (recorder.captures, recorder.replays) == (1, 3)


def test_parts_of_a_meta_batch_are_replays_of_one_graph() -> None:
    learner, recorder = maml(executor="grouped"), Recorder()
    objective = learner._objective(3, second_order=True)
    gradient = MetaGradient(objective, "grouped", 2000, Launches(recorder))
    episodes = Noise().episodes("train", range(5), SHAPE, 0)
    expected = gradient(learner.params, _data(episodes))
    gradient._each = dict.fromkeys(gradient._each, 1_200_000_000)
    found = gradient(learner.params, _data(episodes))
    torch.testing.assert_close(flat(found[0]), flat(expected[0]), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found[1], expected[1])
    assert (recorder.captures, recorder.replays) == (1, 3)
    # Inner steps that are computed anew are launched kernel by kernel.
    gradient._each = dict.fromkeys(gradient._each, 2_200_000_000)
    torch.testing.assert_close(flat(gradient(learner.params, _data(episodes))[0]), flat(expected[0]))
    assert recorder.captures == 1


def test_training_on_a_gpu_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained()
    recorder = Recorder()
    monkeypatch.setattr(learner_module, "launches_on", lambda device: Launches(recorder))
    assert torch.equal(trained(), expected)
    assert (recorder.captures, recorder.replays) == (1, 2)


def trained(**config: Any) -> Tensor:
    """Return the parameters after four updates."""
    learner = maml(executor="grouped", tasks=2, **config)
    for number in range(4):
        learner.update(Noise(), number)
    return flat(learner.params)


@pytest.mark.parametrize("own", [False, True])
def test_a_backbone_of_ones_own_is_launched_kernel_by_kernel(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_module, "launches_on", lambda device: Launches(Recorder()))
    module = nn.Sequential(nn.Flatten(), nn.Linear(256, 4)).double()
    backbone = ModuleBackbone(module, IMAGE) if own else MlpBackbone(item_shape=IMAGE, hidden=(4,))
    config = MamlConfig(tasks=2, inner_steps=1, executor="grouped")
    learner = Maml(config, setting(backbone=backbone), Streams(0), torch.device("cpu"))
    learner.meta_gradient(Noise().episodes("train", range(2), SHAPE, 0))
    assert (learner._gradients[True, False]._replayed is None) == own


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_meta_gradients_are_captured(kind: str) -> None:
    device = torch.device("cuda", 0)
    plain = maml(executor="loop", **KINDS[kind])
    learner = Maml(replace(plain.config, executor="grouped"), plain.setting, Streams(0), device)
    learner.load_state_dict(plain.state_dict())
    for number in range(5):
        episodes = Noise().episodes("train", range(2 * number, 2 * number + 2), SHAPE, 0)
        found = learner.meta_gradient(episodes.to(device), 1)[0]
        expected = plain.meta_gradient(episodes, 1)[0]
        torch.testing.assert_close(flat(found).cpu(), flat(expected), rtol=1e-9, atol=1e-11)
    replayed = next(iter(learner._gradients.values()))._replayed
    assert replayed is not None
    [(_, launch)] = replayed.launches._kept.values()
    assert launch.captured
