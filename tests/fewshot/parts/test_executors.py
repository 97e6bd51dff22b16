from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.episodes import Episodes
from metarl.fewshot.learners.maml import Maml, _data
from metarl.fewshot.parts.backbones import Conv4, MlpBackbone
from metarl.fewshot.parts.executors import TOGETHER, Executor, MetaGradient, Pass, choose, laid_out
from metarl.fewshot.parts.norms import BatchNorm, Norm
from metarl.fewshot.parts.scores import task_loss
from metarl.types import Params
from tests.helpers.stepping_learners import (
    IMAGE,
    KINDS,
    SHAPE,
    TRAINED,
    Noise,
    flat,
    maml,
)


def plain_loop(learner: Maml, episodes: Episodes) -> Tensor:
    """Return the meta-gradient of fixed-rate MAML by plain autograd, written without any of the shipped machinery."""
    config, model = learner.config, learner.model
    leaves = {name: value.detach().clone().requires_grad_() for name, value in learner.params.items()}
    losses = []
    for task in range(len(episodes)):
        x, y = episodes.support.x[task], episodes.support.y[task]
        params: Params = dict(leaves)
        for _ in range(config.inner_steps):
            loss = torch.nn.functional.cross_entropy(model(params, x, Norm("transductive")), y)
            gradient = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            params = {
                name: value - config.inner_rate * g for (name, value), g in zip(params.items(), gradient, strict=True)
            }
        both = torch.cat((x, episodes.query_x[task]))
        norm = Norm("support", support=len(x)) if learner.setting.batch_norm == "support" else Norm("transductive")
        scores = model(params, both, norm)[len(x) :] if norm.support else model(params, episodes.query_x[task], norm)
        losses.append(torch.nn.functional.cross_entropy(scores, episodes.query_y[task]))
    gradient = torch.autograd.grad(torch.stack(losses).mean(), list(leaves.values()))
    return torch.cat([part.flatten() for part in gradient])


@pytest.mark.parametrize("executor", ["loop", "grouped", "vmap"])
@pytest.mark.parametrize("policy", TRAINED)
def test_every_executor_gives_what_plain_autograd_gives(executor: Executor, policy: BatchNorm) -> None:
    learner = maml(policy, executor=executor)
    episodes = Noise().episodes("train", range(3), SHAPE, 0)
    gradient, losses, scores = learner.meta_gradient(episodes)
    expected = plain_loop(learner, episodes)
    assert float(expected.norm()) > 0.1
    torch.testing.assert_close(flat(gradient), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(losses, task_loss(scores, episodes.query_y, 3))


@pytest.mark.parametrize("policy", TRAINED)
@pytest.mark.parametrize("kind", KINDS)
def test_executors_agree_for_every_kind_of_maml(kind: str, policy: BatchNorm) -> None:
    episodes = Noise().episodes("train", range(3), SHAPE, 0)
    loop = flat(maml(policy, executor="loop", **KINDS[kind]).meta_gradient(episodes, 3)[0])
    for executor in ("grouped", "vmap"):
        other = flat(maml(policy, executor=executor, **KINDS[kind]).meta_gradient(episodes, 3)[0])
        torch.testing.assert_close(other, loop, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_inner_steps_computed_anew_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = Noise().episodes("train", range(3), SHAPE, 0)
    expected = flat(maml(executor="grouped", **KINDS[kind]).meta_gradient(episodes, 3)[0])
    # As if one task did not fit into memory.
    monkeypatch.setattr(MetaGradient, "_bytes_of_a_task", lambda *_: 10**12)
    for executor in ("grouped", "loop"):
        again = flat(maml(executor=executor, **KINDS[kind]).meta_gradient(episodes, 3)[0])
        torch.testing.assert_close(again, expected, rtol=1e-12, atol=1e-14)


def test_computing_anew_keeps_less_in_memory() -> None:
    learner = maml(inner_steps=6)
    data = {
        name: getattr(episodes, name)[0] if name.startswith("query") else getattr(episodes.support, name[8:])[0]
        for episodes in [Noise().episodes("train", range(1), SHAPE, 0)]
        for name in ("support_x", "support_y", "query_x", "query_y")
    }
    objective = learner._objective(3, second_order=True)
    peaks = []
    for recompute in (False, True):
        Kept.now = Kept.peak = 0
        leaves = {name: value.detach().requires_grad_() for name, value in learner.params.items()}
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            loss, _ = objective(leaves, data, Pass(recompute=recompute))
            torch.autograd.grad(loss, list(leaves.values()))
        peaks.append(Kept.peak)
    assert peaks[1] < peaks[0] / 2.5


class Kept:
    """A tensor that waits for a backward pass; the class counts the bytes of all of them."""

    now = 0
    peak = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        Kept.now += tensor.nbytes
        Kept.peak = max(Kept.peak, Kept.now)

    def __del__(self) -> None:
        Kept.now -= self.tensor.nbytes


def sizes_of_parts(gradient: MetaGradient) -> list[int]:
    """Return a list to which every part of a meta-batch that is taken from now on adds its tasks."""
    sizes: list[int] = []
    part = gradient._part
    gradient._part = lambda params, data, recompute: (
        sizes.append(len(data["query_y"])),
        part(params, data, recompute),
    )[1]
    return sizes


def test_tasks_are_taken_in_parts_where_memory_is_short() -> None:
    episodes = Noise().episodes("train", range(5), SHAPE, 0)
    expected = flat(maml(executor="grouped").meta_gradient(episodes)[0])
    learner = maml(executor="grouped")
    learner.meta_gradient(episodes)
    gradient = learner._gradients[True, False]
    each = next(iter(gradient._each.values()))
    sizes = sizes_of_parts(gradient)
    gradient.memory = int(2.5 * each / 1e6 + 1)
    gradient._each = dict.fromkeys(gradient._each, int(gradient.memory * 1e6 / 2.5))
    torch.testing.assert_close(flat(learner.meta_gradient(episodes)[0]), expected, rtol=1e-12, atol=1e-14)
    assert sizes == [2, 2, 1]


COMPILED = """
import torch
from metarl.fewshot.parts.backbones import MlpBackbone
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.seeding import Streams

x, y = torch.randn(2, 4, 13, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
episodes = Episodes(support=Support(x=x[:, :5], y=y[:, :5, :1], way=0), query_x=x[:, 5:], query_y=y[:, 5:, :1])
setting = Setting(
    shape=EpisodeShape(shot=5, query=8),
    backbone=MlpBackbone(item_shape=(2,), hidden=(6,), activation="tanh"),
    outputs=1,
    dtype=torch.float64,
)
loop, compiled = (
    Maml(MamlConfig(tasks=4, inner_steps=2, executor=name), setting, Streams(0), torch.device("cpu"))
    for name in ("loop", "compiled")
)
expected, found = (learner.meta_gradient(episodes)[0] for learner in (loop, compiled))
for name in expected:
    torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-12)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_compiled_executor_agrees() -> None:
    # In a process of its own: the checks of annotations that tests run with would break its graph.
    ended = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_executors_are_chosen_by_the_size_of_items() -> None:
    assert choose("auto", MlpBackbone(item_shape=(1,))) == "grouped"
    assert choose("auto", Conv4(item_shape=(1, 28, 28))) == "grouped"
    assert choose("auto", Conv4(item_shape=(3, 84, 84))) == "loop"
    assert choose("vmap", Conv4(item_shape=(3, 84, 84))) == "vmap"


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("executor", ["vmap", "compiled"])
def test_executors_that_cannot_save_memory_say_so(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MetaGradient, "_bytes_of_a_task", lambda *_: 3_000_000_000)
    with pytest.raises(UserError, match=r"'\w+' and --memory 2000, and one task keeps 3,000 MB .* use loop or grouped"):
        maml(executor=executor).meta_gradient(Noise().episodes("train", range(2), SHAPE, 0))


def test_tasks_of_images_are_taken_a_few_at_a_time() -> None:
    episodes = Noise().episodes("train", range(TOGETHER + 1), SHAPE, 0)
    learner = maml(executor="grouped")
    expected = flat(maml(executor="loop").meta_gradient(episodes)[0])
    gradient = MetaGradient(learner._objective(3, second_order=True), "grouped", 2000)
    sizes = sizes_of_parts(gradient)
    found = gradient(learner.params, _data(episodes))[0]
    assert sizes == [TOGETHER, 1]
    torch.testing.assert_close(flat(found), expected, rtol=1e-10, atol=1e-12)


def test_layouts_that_vmap_has_no_form_for_are_left() -> None:
    backbone = Conv4(item_shape=IMAGE)
    assert laid_out(backbone, "grouped") is backbone
    for executor in ("vmap", "compiled"):
        assert laid_out(backbone, executor) == Conv4(item_shape=IMAGE, channels_last=False)


def test_executors_that_cannot_work_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="Unknown executor 'fast'"):
        choose("fast", MlpBackbone(item_shape=(1,)))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"no C\+\+ compiler"):
        choose("compiled", MlpBackbone(item_shape=(1,)))
