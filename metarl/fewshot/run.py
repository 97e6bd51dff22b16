"""What a run of a few-shot learner is: its settings, and from these its data and its learner."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch

from metarl.config import check, from_plain
from metarl.devices import resolve_device
from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data import load as load_data
from metarl.fewshot.episodes import EpisodeShape, Source
from metarl.fewshot.learners import config_class, make
from metarl.fewshot.parts.backbones import BackboneName, make_backbone
from metarl.fewshot.parts.layers import Precision
from metarl.fewshot.parts.learner import FewShotLearner, Setting
from metarl.fewshot.parts.norms import BatchNorm
from metarl.ranks import ALONE, Ranks
from metarl.run.folder import RunFolder
from metarl.run.settings import RunSettings
from metarl.seeding import Streams

SMALLEST_IMAGE = 16
"""Height and width from which on `auto` takes a convolutional backbone."""


@dataclass(frozen=True, kw_only=True)
class FewShotRun(RunSettings):
    """What a run of a few-shot learner is, apart from the learner's own settings."""

    data: str
    """Address of the data."""
    size: int = 0
    """Height and width that images are brought to; 0: the data's own."""
    data_options: dict[str, Any] = field(default_factory=dict)
    """The data set's own options, as far as they are not its default ones (see `metarl.fewshot.data.options_of`)."""
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
    return load_data(run.data, run.data_root, size=run.size, **run.data_options)


@runtime_checkable
class Movable(Protocol):
    """Data whose items can lie on any device."""

    def to(self, device: torch.device) -> Source:
        """Return them with all items on `device`."""
        ...


def on_device(source: Source, device: torch.device) -> Source:
    """Return data on a device, where they can be moved: episodes are then gathered there."""
    return source.to(device) if isinstance(source, Movable) else source


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
        classes=classes_of(source),
        seed=run.seed,
        ranks=ranks,
    )
    return make(run.learner, config, setting, streams, resolve_device(run.device))


def classes_of(source: Source) -> int:
    """Return the number of training classes; 0 where there is no one list of them."""
    return len(source.split("train").names) if isinstance(source, ClassData) else 0
