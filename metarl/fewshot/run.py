"""What a run of a few-shot learner is: its settings, and from these its data and its learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, get_args, runtime_checkable

import torch

from metarl.config import MOST_STEPS, check, from_plain
from metarl.devices import resolve_device
from metarl.errors import UserError, nearest
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data import LARGEST_SIZE
from metarl.fewshot.data import load as load_data
from metarl.fewshot.data.functions import FunctionData
from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.episodes import Source as DataSource
from metarl.fewshot.layout import PLAIN
from metarl.fewshot.learners import config_class, make
from metarl.fewshot.parts.addresses import given_at, given_in, is_address
from metarl.fewshot.parts.backbones import BackboneName, make_backbone
from metarl.fewshot.parts.conv1d import SHORTEST
from metarl.fewshot.parts.layers import Precision
from metarl.fewshot.parts.learner import FewShotLearner, Setting
from metarl.fewshot.parts.norms import BatchNorm
from metarl.fewshot.parts.own import Given, OwnBackbone, is_own, name_of, own_backbone
from metarl.ranks import ALONE, Ranks
from metarl.run.folder import RunFolder, Trainable
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
    backbone: Any = "auto"
    """Network from items to features: auto (conv4 for images, conv1d for signals, else mlp), mlp, conv4, resnet12,
    conv1d, identity (items are features already), or one's own: a torch module [N, *item] -> [N, F], a callable that
    makes one, or the address of either, file.py:name or package.module:name."""
    freeze_backbone: bool = False
    """The weights of one's own backbone stay as they are."""
    width: int = 64
    """Channels of conv4 and conv1d; of the first block of resnet12."""
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
        check(self, at_least={"size": 0, "way": 2, "shot": 1, "query": 1, "validation": 0, "log_every": 1, "width": 1})
        check(self, at_most={"size": LARGEST_SIZE, "validation": MOST_STEPS})
        if not isinstance(self.backbone, str):
            object.__setattr__(self, "backbone", Given(name_of(self.backbone), self.backbone))
        names = ("auto", *get_args(BackboneName))
        own = is_own(self.backbone)
        if self.backbone not in names and not own:
            raise UserError(f"Unknown backbone '{self.backbone}'.{nearest(self.backbone, names)}")
        if self.freeze_backbone and not own:
            raise UserError(
                f"Got freeze_backbone with the backbone {self.backbone}, which has no weights before it is trained. "
                "Leave it out, or give a module with weights of its own."
            )
        if own and self.precision != "float32":
            raise UserError(f"Got the precision {self.precision} for {self.backbone}. Use float32.")

    @property
    def title(self) -> str:
        """What the run is called while it is shown."""
        return f"{self.learner} {self.data}"

    @property
    def shape(self) -> EpisodeShape:
        """Size of its episodes."""
        return EpisodeShape(way=self.way, shot=self.shot, query=self.query)


def stored(
    folder: Path, data_root: Path | None = None, *, backbone: str | None = None, trust: bool = False
) -> tuple[FewShotRun, Any, int]:
    """Return the settings of a run, those of its learner, and the iterations that it was last asked for.

    The last two arguments are those of `with_backbone`.

    Raises:
        UserError: there is no such run, or it is of another kind.
    """
    run, plain = RunFolder(folder).settings(FewShotRun)
    config = from_plain(config_class(run.learner), plain)
    run = with_backbone(replace(run, data_root=data_root or run.data_root), backbone, folder, trust=trust)
    return run, config, RunFolder(folder).iterations()


def open_data(run: FewShotRun) -> DataSource:
    """Return the data of a run."""
    return load_data(run.data, run.data_root, size=run.size, **run.data_options)


@runtime_checkable
class Movable(Protocol):
    """Data whose items can lie on any device."""

    def to(self, device: torch.device) -> DataSource:
        """Return them with all items on `device`."""
        ...


def on_device(source: DataSource, device: torch.device) -> DataSource:
    """Return data on a device, where they can be moved: episodes are then gathered there."""
    return source.to(device) if isinstance(source, Movable) else source


def with_backbone(run: FewShotRun, given: Any = None, folder: Path | None = None, *, trust: bool = False) -> FewShotRun:
    """Return a run's settings with its own backbone, where it has one.

    Args:
        run: the settings; of a run folder, where one is named.
        given: the backbone, or its address, where the user says it anew.
        folder: the run folder; None for a new run.
        trust: execute the file that the run names though this user did not make the run.

    Raises:
        UserError: the run has a backbone of ours, or its own is not found, or may not be executed.
    """
    if given is not None and not is_own(run.backbone):
        raise UserError(f"Got a backbone for {folder}, which has its own, {run.backbone}. Leave it out.")
    if given is not None and not is_address(given):
        thing = given.thing if isinstance(given, Given) else given
        if isinstance(thing, str):
            raise UserError(f"Got the backbone '{thing}' for {folder}. Give a module, or FILE:NAME.")
        return replace(run, backbone=Given(run.backbone, thing))
    if given is not None:
        found, source = given_at(given)
        return replace(run, backbone=Given(run.backbone, found.thing), sources=(source,))
    if not is_address(run.backbone):
        return run
    if folder is None:
        found, source = given_at(run.backbone)
    else:
        found, source = given_in(folder, run.backbone, run.sources, trust=trust)
    return replace(run, backbone=found, sources=(source,))


def fitted(run: FewShotRun, source: DataSource) -> FewShotRun:
    """Return a run's settings with what follows from the data: their fingerprint, and the backbone.

    Raises:
        UserError: the run had other data.
    """
    fingerprint = source.describe()["fingerprint"]
    if run.fingerprint not in ("", fingerprint):
        layout = source.layout if isinstance(source, ClassData) else ""
        earlier = " Of an earlier version: arrays with the layout 'plain'." if layout not in ("", "nf", PLAIN) else ""
        raise UserError(
            f"Got the data {source.name} with fingerprint {fingerprint[:12]}, and the run was made with "
            f"{run.fingerprint[:12]} ({run.data}). Give the same data: --data-root says where they lie.{earlier}"
        )
    backbone = run.backbone
    if backbone == "auto":
        backbone = backbone_for(source.item_shape)
    return replace(run, fingerprint=fingerprint, backbone=backbone)


def backbone_for(item_shape: Sequence[int]) -> BackboneName:
    """Return the backbone that `auto` stands for: it suits what items of such a shape are."""
    if len(item_shape) == 3 and min(item_shape[1:]) >= SMALLEST_IMAGE:
        return "conv4"
    return "conv1d" if len(item_shape) == 2 and item_shape[1] >= SHORTEST else "mlp"


def unused(run: FewShotRun, source: DataSource) -> dict[str, str]:
    """Return settings of a run, fitted to its data, that change nothing -> what they would need."""
    found = {} if run.backbone == "mlp" else {"hidden": "--backbone mlp"}
    if run.backbone not in get_args(BackboneName) or run.backbone in ("mlp", "identity"):
        found |= dict.fromkeys(("width", "channels_last"), "--backbone conv4, resnet12 or conv1d")
    if run.backbone in ("mlp", "identity"):
        found["batch_norm"] = "a backbone with batch norm, conv4, resnet12 or conv1d"
    if source.outputs:
        found["way"] = "data with classes"
    if isinstance(source, FunctionData):
        found |= {"size": "data that are images", "data_root": "data that are read from files"}
    return found


def make_learner(
    run: FewShotRun, config: Any, source: DataSource, streams: Streams, ranks: Ranks = ALONE
) -> FewShotLearner:
    """Return the learner of a run, freshly made; `run` is fitted to its data."""
    if run.backbone == "auto":
        raise ValueError("fit the run to its data first")
    if is_own(run.backbone):
        backbone = _own(run, source)
    else:
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
        most_way=most_way(source),
        seed=run.seed,
        ranks=ranks,
    )
    return make(run.learner, config, setting, streams, resolve_device(run.device))


def _own(run: FewShotRun, source: DataSource) -> OwnBackbone:
    """Return a run's own backbone, where it was given."""
    if not isinstance(run.backbone, Given):
        raise UserError(
            f"The backbone of this run, {run.backbone}, was given in Python, and is needed again: "
            "fewshot.load(folder, backbone=...), or fewshot.train with the same FewShotRun(backbone=...) and "
            "resume=True. Commands cannot find it."
        )
    seed = int(torch.randint(2**62, (), generator=Streams(run.seed)["backbone"]))
    return own_backbone(run.backbone.thing, source.item_shape, freeze=run.freeze_backbone, seed=seed)


class WithBackbone:
    """A learner with what its own backbone holds beside its parameters, as a checkpoint has them.

    Args:
        learner: it has a backbone of one's own.
        backbone: that one.
    """

    def __init__(self, learner: FewShotLearner, backbone: OwnBackbone) -> None:
        self.learner = learner
        self.backbone = backbone

    @property
    def config(self) -> Any:
        """Settings of the learner."""
        return self.learner.config

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        state = self.learner.state_dict()
        return {**state, "backbone": self.backbone.state_dict(state["params"])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore both.

        Raises:
            ValueError: names or shapes differ, or the backbone computes something else than it did.
        """
        own = {name: value for name, value in state.items() if name != "backbone"}
        self.learner.load_state_dict(own)
        self.backbone.load_state_dict(state["backbone"], own["params"])


def trainable(learner: FewShotLearner) -> Trainable:
    """Return what a run folder keeps of a learner."""
    backbone = learner.setting.backbone
    return WithBackbone(learner, backbone) if isinstance(backbone, OwnBackbone) else learner


@runtime_checkable
class _Ways(Protocol):
    def most_way(self, split: str) -> int: ...


def most_way(source: DataSource) -> int:
    """Return how many ways every training episode can have; 0 where nothing says."""
    return source.most_way("train") if isinstance(source, _Ways) else 0


def classes_of(source: DataSource) -> int:
    """Return the number of training classes; 0 where there is no one list of them."""
    return len(source.split("train").names) if isinstance(source, ClassData) else 0
