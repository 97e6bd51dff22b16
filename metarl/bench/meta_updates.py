"""Contenders of the few-shot benchmark: meta-updates of MAML and Reptile, as ours, as a task loop, as other packages.

The task loop is what people write with a plain torch module: `functional_call`, one graph a task, one backward pass a
task. Where learn2learn, higher or TorchOpt can be imported, they take part with their own documented usage.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as nnf

from metarl.bench.limits import CPU
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.parts.backbones import Backbone, Conv4, MlpBackbone
from metarl.fewshot.parts.executors import Executor
from metarl.fewshot.parts.learner import Setting
from metarl.seeding import Streams

PLAIN = "task loop"
"""The reference of all ratios."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A meta-update that contenders take.

    Attributes:
        subject: what it learns.
        item_shape: of one item.
        shape: of the episodes.
        outputs: of regression, else 0.
        tasks: episodes of a meta-update, M.
        steps: inner steps.
        rate: inner rate.
        width: channels of Conv4; 0: an MLP 40-40.
        executors: of ours that take part.
    """

    subject: str
    item_shape: tuple[int, ...]
    shape: EpisodeShape
    outputs: int
    tasks: int
    steps: int
    rate: float
    width: int
    executors: tuple[Executor, ...]

    @property
    def title(self) -> str:
        """Return what it is, in a line."""
        network = f"Conv4-{self.width}" if self.width else "MLP 40-40"
        way = "" if self.outputs else f"{self.shape.way}-way "
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        return (
            f"MAML on {self.subject}: {network}, {self.tasks} tasks, {way}{self.shape.shot}-shot, {steps}, second order"
        )

    @property
    def backbone(self) -> Backbone:
        """Return our network."""
        if self.width:
            return Conv4(item_shape=self.item_shape, width=self.width)
        return MlpBackbone(item_shape=self.item_shape)

    def module(self) -> nn.Module:
        """Return the same network as a torch module, norms over the batch."""
        outputs = self.outputs or self.shape.way
        if not self.width:
            return nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, outputs))
        layers: list[nn.Module] = []
        for i in range(4):
            inputs = self.item_shape[0] if i == 0 else self.width
            convolution = nn.Conv2d(inputs, self.width, 3, padding=1, bias=False)
            norm = nn.BatchNorm2d(self.width, track_running_stats=False)
            layers += [convolution, norm, nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(self.backbone.features, outputs))

    def episodes(self) -> Episodes:
        """Return a made meta-batch."""
        generator = torch.Generator().manual_seed(0)
        way = 1 if self.outputs else self.shape.way
        parts = []
        for size in (self.shape.shot, self.shape.query):
            x = torch.randn(self.tasks, way * size, *self.item_shape, generator=generator)
            labels = torch.arange(way).repeat_interleave(size).expand(self.tasks, -1)
            parts.append((x, x.sin() if self.outputs else labels))
        (support_x, support_y), (query_x, query_y) = parts
        support = Support(x=support_x, y=support_y, way=0 if self.outputs else way)
        return Episodes(support=support, query_x=query_x, query_y=query_y)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Return the loss of one task."""
        return nnf.mse_loss(scores, y) if self.outputs else nnf.cross_entropy(scores, y)


OMNIGLOT = Problem(
    subject="28x28",
    item_shape=(1, 28, 28),
    shape=EpisodeShape(way=5, shot=1, query=1),
    outputs=0,
    tasks=32,
    steps=1,
    rate=0.4,
    width=64,
    executors=("loop", "vmap", "grouped"),
)
PROBLEMS: dict[str, Problem] = {
    "sinusoid": Problem(
        subject="sinusoids",
        item_shape=(1,),
        shape=EpisodeShape(way=1, shot=10, query=10),
        outputs=1,
        tasks=25,
        steps=1,
        rate=0.01,
        width=0,
        executors=("loop", "vmap", "grouped", "compiled"),
    ),
    "omniglot-1": OMNIGLOT,
    "omniglot-5": replace(OMNIGLOT, steps=5),
    "mini-imagenet": Problem(
        subject="84x84",
        item_shape=(3, 84, 84),
        shape=EpisodeShape(way=5, shot=1, query=15),
        outputs=0,
        tasks=4,
        steps=5,
        rate=0.01,
        width=32,
        executors=("auto",),
    ),
}


# -- MAML -------------------------------------------------------------------------------------------------------------


def ours(problem: Problem, executor: Executor, device: torch.device = CPU) -> Callable[[], object]:
    """Return one meta-update by an executor."""
    setting = Setting(
        # Norms over the batch, as in the modules beside it.
        shape=problem.shape,
        backbone=problem.backbone,
        outputs=problem.outputs,
        batch_norm="transductive",
    )
    config = MamlConfig(
        tasks=problem.tasks, inner_steps=problem.steps, inner_rate=problem.rate, executor=executor, memory=900
    )
    learner = Maml(config, setting, Streams(0), device)
    episodes = problem.episodes().to(device)

    def update() -> None:
        gradient, _, _ = learner.meta_gradient(episodes)
        learner.optimiser.step(gradient, 0)

    return update


def task_loop(problem: Problem, device: torch.device = CPU) -> Callable[[], object]:
    """Return one meta-update by a plain loop over tasks."""
    module = problem.module().to(device)
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    e = problem.episodes().to(device)

    def update() -> None:
        optimiser.zero_grad()
        for task in range(problem.tasks):
            params: dict[str, Tensor] = dict(module.named_parameters())
            for _ in range(problem.steps):
                loss = problem.loss(functional_call(module, params, (e.support.x[task],)), e.support.y[task])
                gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
                params = {
                    name: value - problem.rate * g for (name, value), g in zip(params.items(), gradients, strict=True)
                }
            loss = problem.loss(functional_call(module, params, (e.query_x[task],)), e.query_y[task])
            (loss / problem.tasks).backward()
        optimiser.step()

    return update


def with_learn2learn(package: Any, problem: Problem) -> Callable[[], object]:
    """Return one meta-update with learn2learn."""
    maml = package.algorithms.MAML(problem.module(), lr=problem.rate, first_order=False)
    optimiser = torch.optim.Adam(maml.parameters(), lr=1e-3)
    e = problem.episodes()

    def update() -> None:
        optimiser.zero_grad()
        for task in range(problem.tasks):
            learner = maml.clone()
            for _ in range(problem.steps):
                learner.adapt(problem.loss(learner(e.support.x[task]), e.support.y[task]))
            (problem.loss(learner(e.query_x[task]), e.query_y[task]) / problem.tasks).backward()
        optimiser.step()

    return update


def with_higher(package: Any, problem: Problem) -> Callable[[], object]:
    """Return one meta-update with higher."""
    module = problem.module()
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    inner = torch.optim.SGD(module.parameters(), lr=problem.rate)
    e = problem.episodes()

    def update() -> None:
        optimiser.zero_grad()
        for task in range(problem.tasks):
            with package.innerloop_ctx(module, inner, copy_initial_weights=False) as (functional, stepper):
                for _ in range(problem.steps):
                    stepper.step(problem.loss(functional(e.support.x[task]), e.support.y[task]))
                (problem.loss(functional(e.query_x[task]), e.query_y[task]) / problem.tasks).backward()
        optimiser.step()

    return update


def with_torchopt(package: Any, problem: Problem) -> Callable[[], object]:
    """Return one meta-update with TorchOpt."""
    module = problem.module()
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    inner = package.MetaSGD(module, lr=problem.rate)
    e = problem.episodes()

    def update() -> None:
        optimiser.zero_grad()
        start, stepper = (package.extract_state_dict(x, by="reference") for x in (module, inner))
        for task in range(problem.tasks):
            for _ in range(problem.steps):
                inner.step(problem.loss(module(e.support.x[task]), e.support.y[task]))
            (problem.loss(module(e.query_x[task]), e.query_y[task]) / problem.tasks).backward()
            package.recover_state_dict(module, start)
            package.recover_state_dict(inner, stepper)
        optimiser.step()

    return update


PACKAGES: dict[str, Callable[[Any, Problem], Callable[[], object]]] = {
    "learn2learn": with_learn2learn,
    "higher": with_higher,
    "torchopt": with_torchopt,
}


class Absent(Exception):
    """A package cannot take part here."""


def usable(name: str, adapter: Callable[[Any], Callable[[], object]]) -> Callable[[], object]:
    """Return a package's contender, which has been run once.

    Raises:
        Absent: the package cannot be imported, or fails with the torch of today; it says how.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = adapter(importlib.import_module(name))
            run()
    except Exception as error:
        # Packages for earlier versions of torch and Python fail in many ways.
        raise Absent(f"{name} ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})") from error
    return run


def contender(problem: Problem, name: str) -> Callable[[], object]:
    """Return a meta-update by name; raise as `usable`."""
    if name == PLAIN:
        return task_loop(problem)
    if name in PACKAGES:
        return usable(name, lambda package: PACKAGES[name](package, problem))
    return ours(problem, cast(Executor, name))


# -- Reptile ----------------------------------------------------------------------------------------------------------

REPTILE = ReptileConfig(tasks=25, train_shot=20, inner_steps=5, inner_batch=10)


def reptile_updates() -> dict[str, Callable[[], object]]:
    """Return one meta-update of Reptile on sinusoids: by one optimiser a task, and by stacked parameters."""
    problem, tasks = PROBLEMS["sinusoid"], REPTILE.tasks
    steps, batch = REPTILE.inner_steps, REPTILE.inner_batch
    setting = Setting(shape=problem.shape, backbone=problem.backbone, outputs=1)
    learner = Reptile(REPTILE, setting, Streams(0), CPU)
    episodes = problem.episodes()

    class Made:
        name, item_shape, outputs = "made", (1,), 1

        def episodes(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Episodes:
            return episodes

        def describe(self) -> dict[str, Any]:
            return {}

    module = problem.module()
    x = torch.cat((episodes.support.x, episodes.query_x), 1)
    y = torch.cat((episodes.support.y, episodes.query_y), 1)
    generator = torch.Generator().manual_seed(0)

    def loop() -> None:
        start = {name: value.detach().clone() for name, value in module.state_dict().items()}
        moves = {name: torch.zeros_like(value) for name, value in start.items()}
        for task in range(tasks):
            module.load_state_dict(start)
            optimiser = torch.optim.Adam(module.parameters(), lr=1e-3, betas=(0.0, 0.999))
            for _ in range(steps):
                rows = torch.randperm(x.shape[1], generator=generator)[:batch]
                optimiser.zero_grad()
                nnf.mse_loss(module(x[task, rows]), y[task, rows]).backward()
                optimiser.step()
            for name, value in module.state_dict().items():
                moves[name] += (value - start[name]) / tasks
        module.load_state_dict({name: value + 0.1 * moves[name] for name, value in start.items()})

    return {PLAIN: loop, "stacked": partial(learner.update, Made(), 0)}


def reptile_step_bytes() -> int:
    """Return the bytes that an Adam step of all tasks has to move.

    It reads parameters, gradients and two moments, and writes parameters and two moments; the gradients were written
    before it.
    """
    parameters = sum(value.numel() for value in PROBLEMS["sinusoid"].module().parameters())
    return 8 * 4 * parameters * REPTILE.tasks
