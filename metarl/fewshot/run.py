"""Runs of few-shot learners: what a run is, training in a run folder, loading what was trained.

Training, checkpoints and going on bit for bit are those of metarl/run/driver.py. At every checkpoint the learner is
tested on the same episodes of the validation classes, where the data have such; the best of them is best.pt.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from json import dumps as to_json
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from rich.console import Console

from metarl.config import check, from_plain
from metarl.devices import resolve_device
from metarl.errors import UserError
from metarl.fewshot import manifest as manifests
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data import load as load_data
from metarl.fewshot.episodes import EpisodeShape, Source
from metarl.fewshot.evaluate import measure
from metarl.fewshot.learners import config_class, make
from metarl.fewshot.manifest import Manifest
from metarl.fewshot.parts.backbones import BackboneName, BatchNorm, Precision, make_backbone
from metarl.fewshot.parts.learner import FewShotLearner, Setting
from metarl.ranks import ALONE, Ranks
from metarl.run.driver import Step, TrainResult, console_of
from metarl.run.driver import train as train_in_folder
from metarl.run.folder import RunFolder
from metarl.run.settings import Device, RunSettings
from metarl.seeding import Streams
from metarl.types import Metrics

VALIDATION_SEED = 0
"""Seed of the validation episodes: the same ones for all runs."""
SMALLEST_IMAGE = 16
"""Height and width from which on `auto` takes a convolutional backbone."""


@dataclass(frozen=True, kw_only=True)
class FewShotRun(RunSettings):
    """What a run of a few-shot learner is, apart from the learner's own settings."""

    data: str
    """Address of the data."""
    size: int = 0
    """Height and width that images are brought to; 0: the data's own."""
    learner: str
    """Name of the learner."""
    way: int = 5
    """Classes of an episode."""
    shot: int = 1
    """Support items of each class; of the whole episode in regression."""
    query: int = 5
    """Query items of each class; of the whole episode in regression."""
    backbone: Literal["auto"] | BackboneName = "auto"
    """Network from items to features; auto is conv4 for images, else mlp."""
    width: int = 64
    """Channels of conv4; of the first block of resnet12."""
    hidden: tuple[int, ...] = (40, 40)
    """Units of the layers of mlp."""
    channels_last: bool = True
    """Memory layout of the convolutions, which is the faster one on CPUs."""
    precision: Precision = "float32"
    """bfloat16: convolutions multiply in it, which is faster where a processor has it; the rest stays in float32."""
    batch_norm: BatchNorm = "support"
    """What batch norm takes its statistics over, in training and at test."""
    validation: int = 200
    """Validation episodes at every checkpoint; 0: none."""
    fingerprint: str = ""
    """Of the data; empty until they have been seen."""
    data_root: Path | None = None
    """Folder of the data, where they need one."""
    checkpoint_every: int = 200
    """Iterations from one checkpoint to the next."""
    log_every: int = 10
    """Iterations of a row of progress.csv and TensorBoard, which has their means."""

    passing: ClassVar[tuple[str, ...]] = (*RunSettings.passing, "data_root", "log_every")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, at_least={"size": 0, "way": 2, "shot": 1, "query": 1, "validation": 0, "log_every": 1})

    @property
    def title(self) -> str:
        """What the run is called while it is shown."""
        return f"{self.learner} {self.data}"

    @property
    def shape(self) -> EpisodeShape:
        """Size of its episodes."""
        return EpisodeShape(way=self.way, shot=self.shot, query=self.query)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run with its learner."""

    folder: Path
    """The run folder."""
    run: FewShotRun
    """Its settings."""
    learner: FewShotLearner = field(repr=False)
    """As the checkpoint has it."""
    source: Source = field(repr=False)
    """The data."""
    checkpoint: str
    """Which checkpoint it is."""
    iteration: int
    """Iterations that it was trained for."""
    result: TrainResult | None = None
    """How training ended, where it was not just loaded."""


@runtime_checkable
class Movable(Protocol):
    """Data whose items can lie on any device."""

    def to(self, device: torch.device) -> Source:
        """Return them with all items on `device`."""
        ...


def fitted(run: FewShotRun, source: Source) -> FewShotRun:
    """Return a run's settings with what follows from the data: their fingerprint, and the backbone.

    Raises:
        UserError: the run had other data.
    """
    fingerprint = source.describe()["fingerprint"]
    if run.fingerprint not in ("", fingerprint):
        raise UserError(
            f"Got the data {source.name} with fingerprint {fingerprint[:12]}, and the run was made with "
            f"{run.fingerprint[:12]} ({run.data}). Give the same data: --data-root says where they lie."
        )
    backbone = run.backbone
    if backbone == "auto":
        is_image = len(source.item_shape) == 3 and min(source.item_shape[1:]) >= SMALLEST_IMAGE
        backbone = "conv4" if is_image else "mlp"
    return replace(run, fingerprint=fingerprint, backbone=backbone)


def make_learner(
    run: FewShotRun, config: Any, source: Source, streams: Streams, ranks: Ranks = ALONE
) -> FewShotLearner:
    """Return the learner of a run, freshly made; `run` is fitted to its data."""
    if run.backbone == "auto":
        raise ValueError("fit the run to its data first")
    backbone = make_backbone(
        run.backbone,
        source.item_shape,
        width=run.width,
        hidden=run.hidden,
        channels_last=run.channels_last,
        precision=run.precision,
    )
    setting = Setting(
        shape=run.shape,
        backbone=backbone,
        batch_norm=run.batch_norm,
        outputs=source.outputs,
        classes=_classes(source),
        seed=run.seed,
        ranks=ranks,
    )
    return make(run.learner, config, setting, streams, resolve_device(run.device))


def train(
    folder: Path | str,
    run: FewShotRun,
    source: Source | None = None,
    config: Any = None,
    *,
    iterations: int | None = None,
    resume: bool = False,
    checkpoint: str = "last",
    console: Console | None = None,
    json: bool = False,
    ranks: Ranks = ALONE,
) -> Trained:
    """Train a learner in a run folder.

    Args:
        folder: the run folder, new or empty unless `resume`.
        run: what is trained on what.
        source: the data; those of the run's address if not given.
        config: the learner's settings; its default ones if not given.
        iterations: meta-updates in the end; as many as `config` says if not given.
        resume: go on with the run in `folder`.
        checkpoint: which one to go on from.
        console: where progress is shown; standard output if None.
        json: show progress as JSON lines.
        ranks: the processes that train it together (see `metarl.ranks.join`).

    Returns:
        What was trained, as best.pt has it where there is one.

    Raises:
        UserError: the data cannot give the episodes; the folder is taken, or does not hold what is to be resumed.
    """
    folder = Path(folder)
    source = open_data(run) if source is None else source
    run = fitted(run, source)
    config = config_class(run.learner)() if config is None else config
    asked: int = config.iterations if iterations is None else iterations
    console = console_of(ranks, console)
    _check_shape(run, config, source)
    ranks.share(getattr(config, "tasks", 0) or config.batch_size)
    streams = Streams(run.seed)
    learner = make_learner(run, config, source, streams, ranks)
    source = _on_device(source, resolve_device(run.device))
    result = train_in_folder(
        folder,
        run,
        learner,
        _updates(learner, source, run, asked, _validation(run, source, console, json=json), ranks),
        streams,
        asked,
        stride=run.log_every,
        totals=(),
        score="validation/loss" if source.outputs else "validation/accuracy",
        resume=resume,
        checkpoint=checkpoint,
        console=console,
        json=json,
        ranks=ranks,
    )
    return replace(load(folder, source=source, device=run.device), result=result)


def _classes(source: Source) -> int:
    """Return the number of training classes; 0 where there is no one list of them."""
    return len(source.split("train").names) if isinstance(source, ClassData) else 0


def _check_shape(run: FewShotRun, config: Any, source: Source) -> None:
    """Refuse episodes that the training data cannot give, before a run folder is made."""
    # Learners that are trained with more ways than are tested take no more of them than there are classes.
    way = getattr(config, "train_way", 0) or run.way
    way = min(way, _classes(source) or way)
    try:
        source.episodes("train", [0], replace(run.shape, way=max(way, run.way)), run.seed)
    except UserError as error:
        hint = f" Training has {way} ways: --train-way." if way > run.way else ""
        raise UserError(f"{error}{hint}") from error


def _validation(run: FewShotRun, source: Source, console: Console, *, json: bool) -> Manifest | None:
    """Return the validation episodes, or tell why there are none."""
    if run.validation == 0:
        return None
    try:
        return manifests.make(source, "validation", run.validation, run.shape, VALIDATION_SEED)
    except UserError as reason:
        text = f"No validation, the last checkpoint counts: {reason}"
        console.out(to_json({"message": text}) if json else text, highlight=False)
        return None


def _updates(
    learner: FewShotLearner,
    source: Source,
    run: FewShotRun,
    iterations: int,
    validation: Manifest | None,
    ranks: Ranks,
) -> Step:
    """Return the iterations of a learner, as metarl/run/driver.py takes them."""

    def step(number: int) -> Metrics:
        metrics = learner.update(source, number)
        done = number + 1
        if validation is None or (done % run.checkpoint_every and done != iterations):
            return metrics
        before = time.perf_counter()
        episodes = validation
        mean = ranks.once(lambda: float(measure(learner, source, episodes).values.mean()))
        scores = {"validation/loss": mean} if source.outputs else {"validation/accuracy": mean}
        return {**metrics, **scores, "time/validation": time.perf_counter() - before}

    return step


def load(
    folder: Path | str,
    which: str | None = None,
    *,
    source: Source | None = None,
    like: FewShotRun | None = None,
    data_root: Path | None = None,
    device: Device = "cpu",
) -> Trained:
    """Return what a run trained.

    Args:
        folder: the run folder.
        which: the checkpoint: `best`, `last` or `previous`; if not given, the best one where there is one, else the
            last.
        source: the data, where they are open already.
        like: the run that they are of, which must have the same.
        data_root: where they lie now, if elsewhere than in training.
        device: where the learner is to live.

    Raises:
        UserError: there is no such run or checkpoint, it is of another kind, or the data are others.
    """
    folder = Path(folder)
    run, plain = RunFolder(folder).settings(FewShotRun)
    run = replace(run, data_root=data_root or run.data_root, device=device)
    if like is not None and (like.data, like.size) != (run.data, run.size):
        raise UserError(
            f"Got {folder} trained on {_described(run)}, and a run trained on {_described(like)}. "
            "Compare runs of one data set."
        )
    source = open_data(run) if source is None else source
    run = fitted(run, source)
    learner = make_learner(run, from_plain(config_class(run.learner), plain), source, Streams(run.seed))
    if which is None:
        which = "best" if RunFolder(folder).checkpoint("best").exists() else "last"
    iteration = RunFolder(folder).restore(run, which, learner)
    source = _on_device(source, resolve_device(device))
    return Trained(folder=folder, run=run, learner=learner, source=source, checkpoint=which, iteration=iteration)


def _described(run: FewShotRun) -> str:
    return f"{run.data} at --size {run.size}" if run.size else run.data


def stored(folder: Path, data_root: Path | None = None) -> tuple[FewShotRun, Any, int]:
    """Return the settings of a run, those of its learner, and the iterations that it was last asked for.

    Raises:
        UserError: there is no such run, or it is of another kind.
    """
    run, plain = RunFolder(folder).settings(FewShotRun)
    config = from_plain(config_class(run.learner), plain)
    return replace(run, data_root=data_root or run.data_root), config, RunFolder(folder).iterations()


def open_data(run: FewShotRun) -> Source:
    """Return the data of a run."""
    return load_data(run.data, run.data_root, size=run.size)


def _on_device(source: Source, device: torch.device) -> Source:
    """Return data on a device, where they can be moved: episodes are then gathered there."""
    return source.to(device) if isinstance(source, Movable) else source
