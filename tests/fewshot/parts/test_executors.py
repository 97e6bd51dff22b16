"""Few-shot learners that take gradient steps: their meta-gradients, and the executors that compute them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support
from metarl.fewshot.learners.imaml import Imaml, ImamlConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig, _data
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.parts.backbones import Backbone, BatchNorm, Conv4, MlpBackbone, Norm
from metarl.fewshot.parts.executors import TOGETHER, Executor, MetaGradient, Pass, choose, laid_out
from metarl.fewshot.parts.learner import FewShotLearner, OptimiserConfig, Setting, Stepwise, task_loss
from metarl.fewshot.parts.solved import conjugate_gradients
from metarl.seeding import Streams
from metarl.types import Params
from tests.helpers.toys import DOUBLE, seeded

CPU = torch.device("cpu")
SHAPE = EpisodeShape(way=3, shot=2, query=2)
IMAGE = (1, 16, 16)


class Noise:
    """Classification of noise: images of a class have nothing in common."""

    name = "noise"
    item_shape = IMAGE
    outputs = 0

    def episodes(self, split: str, numbers: Any, shape: EpisodeShape, seed: int) -> Episodes:
        parts = []
        for size in (shape.shot, shape.query):
            x = [torch.randn(shape.way * size, *IMAGE, generator=seeded(7 * n + size), dtype=DOUBLE) for n in numbers]
            y = torch.arange(shape.way).repeat_interleave(size).expand(len(numbers), -1)
            parts.append((torch.stack(x), y))
        (support_x, support_y), (query_x, query_y) = parts
        support = Support(x=support_x, y=support_y, way=shape.way)
        return Episodes(support=support, query_x=query_x, query_y=query_y)

    def describe(self) -> dict[str, Any]:
        return {}


class Lines:
    """Regression to lines of two inputs, each with its own slopes."""

    name = "lines"
    item_shape = (2,)
    outputs = 1

    def episodes(self, split: str, numbers: Any, shape: EpisodeShape, seed: int) -> Episodes:
        rows = []
        for number in numbers:
            generator = seeded(1000 * seed + 2 * number + (split == "test"))
            slopes = torch.randn(2, 1, generator=generator, dtype=DOUBLE)
            x = torch.randn(shape.shot + shape.query, 2, generator=generator, dtype=DOUBLE)
            rows.append((x, x @ slopes))
        x, y = (torch.stack(column) for column in zip(*rows, strict=True))
        support = Support(x=x[:, : shape.shot], y=y[:, : shape.shot], way=0)
        return Episodes(support=support, query_x=x[:, shape.shot :], query_y=y[:, shape.shot :])

    def describe(self) -> dict[str, Any]:
        return {}


def setting(batch_norm: BatchNorm = "support", backbone: Backbone | None = None, **other: Any) -> Setting:
    backbone = backbone or Conv4(item_shape=IMAGE, width=3)
    return Setting(shape=other.pop("shape", SHAPE), backbone=backbone, batch_norm=batch_norm, dtype=DOUBLE, **other)


def regression(shot: int = 5) -> Setting:
    backbone = MlpBackbone(item_shape=(2,), hidden=(6,), activation="tanh")
    return setting(backbone=backbone, outputs=1, shape=EpisodeShape(shot=shot, query=8))


def shaken(learner: Any) -> Any:
    """Move all parameters, so that none is special: no zero bias, no unit scale."""
    for i, value in enumerate(learner.params.values()):
        with torch.no_grad():
            value.add_(0.05 * torch.randn(value.shape, generator=seeded(i), dtype=DOUBLE))
    return learner


def flat(params: Params) -> Tensor:
    return torch.cat([value.detach().flatten() for value in params.values()])


def maml(batch_norm: BatchNorm = "support", **config: Any) -> Maml:
    config = {"tasks": 3, "inner_steps": 2, "inner_rate": 0.3, **config}
    return shaken(Maml(MamlConfig(**config), setting(batch_norm), Streams(0), CPU))


KINDS: dict[str, dict[str, Any]] = {
    "maml": {},
    "first-order": {"first_order": True},
    "anil": {"adapts": "head"},
    "meta-sgd": {"rates": "parameter"},
    "per-step rates": {"rates": "step"},
    "step norm": {"rates": "step", "step_norm": True},
    "multi-step": {"multi_step_updates": 10},
}
POLICIES: tuple[BatchNorm, ...] = ("support", "transductive", "running")
TRAINED = POLICIES[:2]
"""While training, `running` is `transductive`."""


# -- executors --------------------------------------------------------------------------------------------------------


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
    return flat(dict(enumerate(torch.autograd.grad(torch.stack(losses).mean(), list(leaves.values())))))  # pyright: ignore


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
from metarl.fewshot.backbones import MlpBackbone
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support
from metarl.fewshot.learner import Setting
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


# -- meta-gradients against finite differences ------------------------------------------------------------------------


@pytest.mark.parametrize("policy", TRAINED)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "first-order"])
def test_meta_gradients_are_finite_differences(kind: str, policy: BatchNorm) -> None:
    learner = maml(policy, **KINDS[kind])
    episodes = Noise().episodes("train", range(3), SHAPE, 0)
    gradient, _, _ = learner.meta_gradient(episodes, 3)
    direction = {name: torch.randn(v.shape, generator=seeded(3), dtype=DOUBLE) for name, v in learner.params.items()}
    # Short, so that no ReLU changes its side on the way.
    direction = {name: 0.01 * value for name, value in direction.items()}
    along = sum(float((gradient[name] * direction[name]).sum()) for name in gradient)
    values = []
    for step in (1e-6, -1e-6):
        moved = maml(policy, **KINDS[kind])
        with torch.no_grad():
            for name, value in moved.params.items():
                value.add_(step * direction[name])
        values.append(float(moved.meta_gradient(episodes, 3)[1].mean()))
    assert along == pytest.approx((values[0] - values[1]) / 2e-6, rel=2e-4, abs=1e-8)


def test_first_order_leaves_the_curvature_out() -> None:
    episodes = Noise().episodes("train", range(3), SHAPE, 0)
    exact, first = (flat(maml(first_order=value).meta_gradient(episodes)[0]) for value in (False, True))
    learner = maml(first_order=True)
    # By definition: the query loss's gradient at the adapted parameters.
    *_, path = learner._path(episodes.support, 2, "support")
    leaves = {name: value.clone().requires_grad_() for name, value in path.items()}
    scores = learner.model.queries(leaves, episodes.support.x, episodes.query_x, "support", by_task=True)
    loss = task_loss(scores, episodes.query_y, 3).mean()
    at_the_end = [g.sum(0).flatten() for g in torch.autograd.grad(loss, list(leaves.values()))]
    torch.testing.assert_close(first, torch.cat(at_the_end), rtol=1e-10, atol=1e-12)
    assert float((exact - first).norm() / exact.norm()) > 0.05


def test_derivative_order_and_step_weights_follow_their_schedules() -> None:
    episodes = Noise().episodes("train", range(3), SHAPE, 0)
    learner = maml(first_order_updates=4, inner_steps=2)
    early, late = (flat(learner.meta_gradient(episodes, number)[0]) for number in (3, 4))
    torch.testing.assert_close(early, flat(maml(first_order=True).meta_gradient(episodes)[0]), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(late, flat(maml().meta_gradient(episodes)[0]), rtol=1e-12, atol=1e-14)
    learner = maml(multi_step_updates=10, inner_steps=4)
    assert learner._weights(0) == pytest.approx([0.25, 0.25, 0.25, 0.25])
    assert learner._weights(5) == pytest.approx([0.125, 0.125, 0.125, 0.625])
    assert learner._weights(10) == learner._weights(99) == [0.0, 0.0, 0.0, 1.0]


# -- iMAML ------------------------------------------------------------------------------------------------------------


def test_imaml_gives_the_gradient_of_the_proximal_optimum() -> None:
    """With an inner problem solved to its end, the implicit gradient is that of the unrolled loop."""
    kind = regression()
    config = ImamlConfig(tasks=3, inner_steps=400, inner_rate=0.1, strength=3.0, cg_iterations=60, cg_damping=0.0)
    learner = shaken(Imaml(config, kind, Streams(0), CPU))
    episodes = Lines().episodes("train", range(3), kind.shape, 0)
    gradient, _, _ = learner.meta_gradient(episodes)

    leaves = {name: value.detach().clone().requires_grad_() for name, value in learner.params.items()}
    total = torch.zeros((), dtype=DOUBLE)
    for task in range(3):
        x, y = episodes.support.x[task], episodes.support.y[task]
        params: Params = dict(leaves)
        for _ in range(400):
            near = sum(((params[name] - leaves[name]) ** 2).sum() for name in params)
            loss = (learner.model(params, x, Norm()) - y).square().mean() + 1.5 * near
            gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            params = {n: value - 0.1 * g for (n, value), g in zip(params.items(), gradients, strict=True)}
        scores = learner.model(params, episodes.query_x[task], Norm())
        total = total + (scores - episodes.query_y[task]).square().mean() / 3.0
    expected = torch.autograd.grad(total, list(leaves.values()))
    torch.testing.assert_close(flat(gradient), torch.cat([g.flatten() for g in expected]), rtol=1e-6, atol=1e-8)


def test_conjugate_gradients_solve_every_system() -> None:
    root = torch.randn(4, 6, 6, generator=seeded(), dtype=DOUBLE)
    systems = root @ root.transpose(1, 2) + torch.eye(6, dtype=DOUBLE)
    right = torch.randn(4, 6, generator=seeded(1), dtype=DOUBLE)
    right[2] = 0.0
    found = conjugate_gradients(lambda v: (systems @ v[..., None]).squeeze(-1), right, 12)
    torch.testing.assert_close(found, torch.linalg.solve(systems, right), rtol=1e-8, atol=1e-10)
    assert conjugate_gradients(lambda v: v, right, 0) is right


# -- Reptile ----------------------------------------------------------------------------------------------------------


def test_reptiles_update_by_hand() -> None:
    """Two tasks, two Adam steps with β1 = 0, then half a step towards their mean."""
    config = ReptileConfig(
        iterations=4, tasks=2, train_shot=6, inner_steps=2, inner_batch=6, inner_rate=0.02, outer_step=0.8
    )
    learner = shaken(Reptile(config, regression(), Streams(0), CPU))
    before = {name: value.clone() for name, value in learner.params.items()}
    number = 2
    metrics = learner.update(Lines(), number)

    # The whole task is one minibatch, so that the order of its items has no influence.
    episodes = Lines().episodes("train", [4, 5], EpisodeShape(shot=5, query=1), 0)
    ends = []
    for task in range(2):
        x = torch.cat((episodes.support.x[task], episodes.query_x[task]))
        y = torch.cat((episodes.support.y[task], episodes.query_y[task]))
        params = dict(before)
        square = {name: torch.zeros_like(value) for name, value in params.items()}
        for step in (1, 2):
            leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
            loss = (learner.model(leaves, x, Norm()) - y).square().mean()
            gradients = torch.autograd.grad(loss, list(leaves.values()))
            for name, g in zip(params, gradients, strict=True):
                square[name] = 0.999 * square[name] + 0.001 * g**2
                deviation = (square[name] / (1.0 - 0.999**step)).sqrt()
                params[name] = params[name] - 0.02 * g / (deviation + 1e-8)
        ends.append(params)
    # ε falls from 0.8 to 0 over 4 updates, and this is the third.
    for name, value in learner.params.items():
        mean = (ends[0][name] + ends[1][name]) / 2.0
        torch.testing.assert_close(value, before[name] + 0.4 * (mean - before[name]), rtol=1e-9, atol=1e-12)
    assert metrics["update/outer_step"] == pytest.approx(0.4)


# -- all of them ------------------------------------------------------------------------------------------------------

MAKERS: dict[str, Any] = {
    "maml": lambda kind: Maml(MamlConfig(tasks=4, inner_steps=2, inner_rate=0.2), kind, Streams(0), CPU),
    "meta-sgd": lambda kind: Maml(
        MamlConfig(tasks=4, inner_steps=2, inner_rate=0.1, rates="parameter"), kind, Streams(0), CPU
    ),
    "reptile": lambda kind: Reptile(
        ReptileConfig(tasks=4, inner_rate=0.01, inner_steps=8, test_steps=10, iterations=400), kind, Streams(0), CPU
    ),
    "imaml": lambda kind: Imaml(
        ImamlConfig(tasks=4, inner_steps=10, inner_rate=0.1, strength=0.5), kind, Streams(0), CPU
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_learners_keep_to_the_interface(name: str) -> None:
    learner = MAKERS[name](setting())
    assert isinstance(learner, FewShotLearner)
    assert isinstance(learner, Stepwise)


@pytest.mark.parametrize("name", MAKERS)
def test_lines_are_learned(name: str) -> None:
    kind = regression(shot=8)
    learner = MAKERS[name](kind)
    test = Lines().episodes("test", range(60), kind.shape, 1)

    def error() -> float:
        return float(task_loss(learner.fit(test.support).predict(test.query_x), test.query_y, 0).mean())

    # Slopes have variance 1: an answer that knows nothing of the task is off by 2 in the mean.
    for number in range(150):
        assert learner.update(Lines(), number)["train/loss"] >= 0.0
    assert error() < 1.0


@pytest.mark.parametrize("name", MAKERS)
def test_before_adaptation_answers_are_chance(name: str) -> None:
    learner = MAKERS[name](setting())
    episodes = Noise().episodes("test", range(60), SHAPE, 0)
    right = learner.path(episodes.support, 0)[0].predict(episodes.query_x).argmax(-1) == episodes.query_y
    # 360 answers among 3 classes: four standard errors.
    assert float(right.double().mean()) == pytest.approx(1.0 / 3.0, abs=0.1)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("policy", POLICIES)
def test_tasks_do_not_influence_one_another(name: str, policy: BatchNorm) -> None:
    learner = MAKERS[name](setting(policy))
    learner.update(Noise(), 0)
    episodes = Noise().episodes("test", range(3), SHAPE, 0)
    together = learner.fit(episodes.support).predict(episodes.query_x)
    for task in range(3):
        support = Support(
            x=episodes.support.x[task : task + 1], y=episodes.support.y[task : task + 1], way=episodes.support.way
        )
        alone = learner.fit(support).predict(episodes.query_x[task : task + 1])
        torch.testing.assert_close(alone[0], together[task], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", MAKERS)
def test_queries_do_not_influence_one_another_unless_they_may(name: str) -> None:
    episodes = Noise().episodes("test", range(2), SHAPE, 0)
    changed = episodes.query_x.clone()
    changed[:, 0] += 3.0
    for policy in POLICIES:
        learner = MAKERS[name](setting(policy))
        learner.update(Noise(), 0)
        predictor = learner.fit(episodes.support)
        first, second = predictor.predict(episodes.query_x)[:, 1:], predictor.predict(changed)[:, 1:]
        assert torch.equal(first, second) == (policy != "transductive")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("way", [2, 3, 7])
def test_any_number_of_ways_and_shots_at_test(name: str, way: int) -> None:
    learner = MAKERS[name](setting())
    learner.update(Noise(), 0)
    episodes = Noise().episodes("test", range(2), EpisodeShape(way=way, shot=3, query=1), 0)
    assert learner.fit(episodes.support).predict(episodes.query_x).shape == (2, way, way)


@pytest.mark.parametrize("name", MAKERS)
def test_classes_in_a_fixed_image_are_told_apart_after_adaptation(name: str) -> None:
    """Support and queries are the same images: a learner that adapts knows them again."""
    kind = setting(backbone=Conv4(item_shape=IMAGE, width=8))
    learner = MAKERS[name](kind)
    if name == "meta-sgd":
        learner = Maml(MamlConfig(tasks=4, inner_rate=0.4, rates="parameter"), kind, Streams(0), CPU)
    episodes = Noise().episodes("test", range(8), SHAPE, 0)
    path = learner.path(episodes.support, 40)
    accuracies = [
        float((path[k].predict(episodes.support.x).argmax(-1) == episodes.support.y).double().mean()) for k in (0, 40)
    ]
    assert accuracies[0] < 0.6 < 0.9 < accuracies[1]


@pytest.mark.parametrize("name", [*MAKERS, "step norm"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_learner_goes_on_bit_for_bit(name: str, policy: BatchNorm) -> None:
    def fresh() -> Any:
        if name == "step norm":
            optimiser = OptimiserConfig(halve_every=3, clip=1.0)
            config = MamlConfig(tasks=2, inner_steps=2, rates="step", step_norm=True, optimiser=optimiser)
            return Maml(config, setting(policy), Streams(0), CPU)
        return MAKERS[name](setting(policy))

    straight, first, second = fresh(), fresh(), fresh()
    for number in range(5):
        straight.update(Noise(), number)
        if number < 2:
            first.update(Noise(), number)
    second.load_state_dict(first.state_dict())
    for number in range(2, 5):
        second.update(Noise(), number)
    assert torch.equal(flat(straight.params), flat(second.params))
    support = Noise().episodes("test", range(2), SHAPE, 0)
    answers = [learner.fit(support.support).predict(support.query_x) for learner in (straight, second)]
    assert torch.equal(*answers)


@pytest.mark.parametrize("name", MAKERS)
def test_foreign_states_are_refused(name: str) -> None:
    wide = MAKERS[name](setting(backbone=Conv4(item_shape=IMAGE, width=4)))
    with pytest.raises(ValueError, match="use its own settings"):
        MAKERS[name](setting()).load_state_dict(wide.state_dict())


def test_averages_are_asked_for_only_where_they_are() -> None:
    episodes = Noise().episodes("test", range(2), SHAPE, 0)
    with pytest.raises(UserError, match="it was trained with 'support'"):
        maml().fit(episodes.support, "running")


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match="--adapts head"):
        MamlConfig(rates="parameter", adapts="head")
    with pytest.raises(UserError, match="has no norms"):
        Maml(MamlConfig(step_norm=True), regression(), Streams(0), CPU)
    with pytest.raises(UserError, match="a model for classification and data for regression"):
        maml().fit(Lines().episodes("test", range(2), regression().shape, 0).support)
