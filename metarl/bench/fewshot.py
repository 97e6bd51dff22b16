"""Benchmark of the few-shot module: meta-updates by every executor, Reptile and episode sampling, beside task loops.

The reference of every ratio is a loop over tasks as people write it with a plain torch module: `functional_call`, one
graph a task, one backward pass a task. Where learn2learn, higher, TorchOpt or easyfsl can be imported, they take part
with their own documented usage. As in engines.py contenders take turns round by round; a figure is the median over
rounds, and a ratio is the median of the rounds' ratios. Peak memory is what a contender adds in a process of its own.
"""

from __future__ import annotations

import importlib
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from statistics import median
from typing import Any, Literal, cast

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as nnf

from metarl.bench.learning import in_turn, peak_kib
from metarl.config import check
from metarl.devices import resolve_threads, torch_threads
from metarl.errors import UserError
from metarl.fewshot.classes import ClassData, ClassSplit
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.parts.backbones import Backbone, Conv4, MlpBackbone
from metarl.fewshot.parts.executors import Executor
from metarl.fewshot.parts.learner import Setting
from metarl.seeding import Streams

CPU = torch.device("cpu")
PLAIN = "task loop"
"""The reference of all ratios."""
Case = Literal["sinusoid", "omniglot-1", "omniglot-5", "mini-imagenet", "reptile", "sampling"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A meta-update that contenders take.

    Attributes:
        title: what it is.
        item_shape: of one item.
        shape: of the episodes.
        outputs: of regression, else 0.
        tasks: episodes of a meta-update, M.
        steps: inner steps.
        rate: inner rate.
        width: channels of Conv4; 0: an MLP 40-40.
        executors: of ours that take part.
        limits: least speed-up that is asked for, by contender.
    """

    title: str
    item_shape: tuple[int, ...]
    shape: EpisodeShape
    outputs: int
    tasks: int
    steps: int
    rate: float
    width: int
    executors: tuple[Executor, ...]
    limits: dict[str, float]

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


PROBLEMS: dict[str, Problem] = {
    "sinusoid": Problem(
        title="MAML on sinusoids: MLP 40-40, 25 tasks, 10-shot, 1 step, second order",
        item_shape=(1,),
        shape=EpisodeShape(way=1, shot=10, query=10),
        outputs=1,
        tasks=25,
        steps=1,
        rate=0.01,
        width=0,
        executors=("loop", "vmap", "grouped", "compiled"),
        limits={"grouped": 15.0, "compiled": 30.0},
    ),
    "omniglot-1": Problem(
        title="MAML on 28x28: Conv4-64, 32 tasks, 5-way 1-shot, 1 step, second order",
        item_shape=(1, 28, 28),
        shape=EpisodeShape(way=5, shot=1, query=1),
        outputs=0,
        tasks=32,
        steps=1,
        rate=0.4,
        width=64,
        executors=("loop", "vmap", "grouped"),
        limits={"grouped": 2.0},
    ),
    "omniglot-5": Problem(
        title="MAML on 28x28: Conv4-64, 32 tasks, 5-way 1-shot, 5 steps, second order",
        item_shape=(1, 28, 28),
        shape=EpisodeShape(way=5, shot=1, query=1),
        outputs=0,
        tasks=32,
        steps=5,
        rate=0.4,
        width=64,
        executors=("loop", "vmap", "grouped"),
        limits={"grouped": 2.5},
    ),
    "mini-imagenet": Problem(
        title="MAML on 84x84: Conv4-32, 4 tasks, 5-way 1-shot, 5 steps, second order",
        item_shape=(3, 84, 84),
        shape=EpisodeShape(way=5, shot=1, query=15),
        outputs=0,
        tasks=4,
        steps=5,
        rate=0.01,
        width=32,
        executors=("auto",),
        limits={"auto": 1.0},
    ),
}


@dataclass(frozen=True, kw_only=True)
class FewShotConfig:
    """Meta-updates and episode sampling beside loops over tasks."""

    cases: tuple[Case, ...] = ("sinusoid", "omniglot-1", "omniglot-5", "mini-imagenet", "reptile", "sampling")
    """Which."""
    rounds: int = 7
    """Rounds in which the contenders take turns."""
    memory: bool = True
    """Also measure the peak memory of every contender on images."""
    threads: int = 0
    """Threads of torch; 0 takes every core."""
    json: bool = False
    """Print JSON in place of tables."""

    def __post_init__(self) -> None:
        check(self, at_least={"rounds": 1, "threads": 0})
        if not self.cases:
            raise UserError("Got no case. Name at least one, see `metarl bench fewshot --help`.")


# -- contenders -------------------------------------------------------------------------------------------------------


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


# -- cases ------------------------------------------------------------------------------------------------------------


def run_fewshot(config: FewShotConfig) -> dict[str, Any]:
    """Measure, print and return all cases."""
    threads = resolve_threads(config.threads)
    console = Console()
    report: dict[str, Any] = {
        "threads": threads,
        "rounds": config.rounds,
        "absent": {},
        "cases": {},
    }
    with torch_threads(threads):
        for case in config.cases:
            if case == "reptile":
                result = _reptile(config.rounds)
            elif case == "sampling":
                result = _sampling(config.rounds, report["absent"])
            else:
                result = _updates(case, config, threads, report["absent"])
            report["cases"][case] = result
            if not config.json:
                _print(result, report, console)
    if not config.json and report["absent"]:
        console.print(f"Left out, for they do not work here: {'; '.join(report['absent'].values())}.")
    return report


def _updates(case: str, config: FewShotConfig, threads: int, absent: dict[str, str]) -> dict[str, Any]:
    """Return the figures of one kind of meta-update; note the packages that cannot take part."""
    problem = PROBLEMS[case]
    updates = {}
    for name in (PLAIN, *PACKAGES, *problem.executors):
        try:
            updates[name] = contender(problem, name)
        except Absent as reason:
            absent[name] = str(reason)
    rows = _compare(updates, config.rounds, problem.limits)
    if config.memory and problem.width:
        for name in updates:
            rows[name]["peak_mb"] = _peak(case, name, threads)
    return {"title": problem.title, "unit": "ms an update", "rows": rows}


def _compare(
    updates: dict[str, Callable[[], object]], rounds: int, limits: dict[str, float], per: int = 1
) -> dict[str, dict[str, Any]]:
    """Return the milliseconds of every contender, and its speed-up on the plain loop; `per` divides the former."""
    seconds = in_turn(rounds, {name: partial(_timed, update) for name, update in updates.items()})
    return {
        name: {
            "ms": 1e3 * median(times) / per,
            "speedup": median(plain / own for plain, own in zip(seconds[PLAIN], times, strict=True)),
            "limit": limits.get(name),
        }
        for name, times in seconds.items()
    }


def _timed(update: Callable[[], object], least: float = 0.2) -> float:
    """Return the seconds of one call, over as many as fill a fifth of a second."""
    started, passed, calls = time.perf_counter(), 0.0, 0
    while passed < least:
        update()
        calls += 1
        passed = time.perf_counter() - started
    return passed / calls


def _peak(case: str, name: str, threads: int) -> float:
    """Return the MB that a contender's updates add to a process of their own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (case, name, threads))


def _peak_here(case: str, name: str, threads: int) -> float:
    torch.set_num_threads(threads)
    update = contender(PROBLEMS[case], name)
    before = peak_kib()
    for _ in range(3):
        update()
    return (peak_kib() - before) / 1024.0


def _reptile(rounds: int) -> dict[str, Any]:
    """Return the figures of Reptile on sinusoids: stacked parameters beside one optimiser a task."""
    problem, tasks, steps, batch = PROBLEMS["sinusoid"], 25, 5, 10
    setting = Setting(shape=problem.shape, backbone=problem.backbone, outputs=1)
    config = ReptileConfig(tasks=tasks, train_shot=20, inner_steps=steps, inner_batch=batch)
    learner = Reptile(config, setting, Streams(0), CPU)
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

    made = Made()
    updates: dict[str, Callable[[], object]] = {PLAIN: loop, "stacked": partial(learner.update, made, 0)}
    title = "Reptile on sinusoids: MLP 40-40, 25 tasks, 5 Adam steps of 10 items"
    return {"title": title, "unit": "ms an update", "rows": _compare(updates, rounds, {"stacked": 15.0})}


def _sampling(rounds: int, absent: dict[str, str]) -> dict[str, Any]:
    """Return the figures of sampling 5-way 1-shot episodes with 1 query a class of 28x28 images."""
    classes, items, tasks = 964, 20, 32
    pictures = torch.randint(0, 256, (classes * items, 1, 28, 28), dtype=torch.uint8)
    split = ClassSplit(
        items=pictures, sizes=torch.full((classes,), items), names=tuple(str(number) for number in range(classes))
    )
    data = ClassData(name="made", splits={"train": split})
    shape = EpisodeShape(way=5, shot=1, query=1)
    numbers = count()

    def batch() -> object:
        first = next(numbers) * tasks
        return data.episodes("train", range(first, first + tasks), shape, 0)

    dataset = Pictures(pictures, items)
    updates: dict[str, Callable[[], object]] = {PLAIN: _by_item(dataset, classes, items, tasks), "ours": batch}
    try:
        updates["easyfsl"] = usable("easyfsl.samplers", lambda package: _with_easyfsl(package, dataset, tasks))
    except Absent as reason:
        absent["easyfsl"] = str(reason)
    rows = _compare(updates, rounds, {"ours": 20.0}, per=tasks)
    return {"title": "Episodes of 28x28 images, 5-way 1-shot, 1 query", "unit": "ms an episode", "rows": rows}


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images in memory, given out one by one, scaled; `get_labels` is what easyfsl asks for."""

    def __init__(self, pictures: Tensor, items: int) -> None:
        self.pictures = pictures
        self.items = items

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return (self.pictures[row].float() / 255.0 - 0.5) / 0.5, row // self.items

    def get_labels(self) -> list[int]:
        """Return the class of every picture."""
        return [row // self.items for row in range(len(self))]


def _by_item(dataset: Pictures, classes: int, items: int, tasks: int) -> Callable[[], object]:
    """Return the sampling of a meta-batch by torch's own loader, a list of rows for every episode."""
    generator = torch.Generator().manual_seed(0)

    class Rows(torch.utils.data.Sampler[list[int]]):
        def __len__(self) -> int:
            return tasks

        def __iter__(self) -> Iterator[list[int]]:
            for _ in range(tasks):
                chosen = torch.randperm(classes, generator=generator)[:5].tolist()
                places = [torch.randperm(items, generator=generator)[:2].tolist() for _ in chosen]
                yield [label * items + place for label, pair in zip(chosen, places, strict=True) for place in pair]

    loader = torch.utils.data.DataLoader(dataset, batch_sampler=Rows())
    return lambda: list(loader)


def _with_easyfsl(package: Any, dataset: Pictures, tasks: int) -> Callable[[], object]:
    """Return the sampling of a meta-batch with easyfsl's sampler and torch's loader."""
    sampler = package.TaskSampler(dataset, n_way=5, n_shot=1, n_query=1, n_tasks=tasks)
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)
    return lambda: list(loader)


def _print(result: dict[str, Any], report: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{result['title']}\n{report['threads']} threads, median of {report['rounds']} rounds")
    peaks = any("peak_mb" in row for row in result["rows"].values())
    for column in ("contender", result["unit"], "speed-up", "asked", *(["peak MB"] if peaks else [])):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for name, row in result["rows"].items():
        asked = "" if row["limit"] is None else f"{row['limit']:g}x"
        peak = [f"{row['peak_mb']:,.0f}"] if "peak_mb" in row else []
        table.add_row(name, f"{row['ms']:.3g}", f"{row['speedup']:.2f}x", asked, *peak)
    console.print(table)
