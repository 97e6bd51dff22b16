"""Training a few-shot learner in a run folder.

Training, checkpoints and going on bit for bit are those of metarl/run/driver.py. At every checkpoint the learner is
tested on the same episodes of the validation classes, where the data have such; the best of them is best.pt.
"""

from __future__ import annotations

from dataclasses import replace
from json import dumps as to_json
from pathlib import Path
from typing import Any

from rich.console import Console

from metarl.arguments import checked
from metarl.config import check_used
from metarl.devices import resolve_device
from metarl.errors import UserError
from metarl.fewshot import manifest as manifests
from metarl.fewshot.classes import ClassData
from metarl.fewshot.episodes import Source
from metarl.fewshot.learners import check_config, config_class
from metarl.fewshot.loading import Trained, load
from metarl.fewshot.manifest import Manifest
from metarl.fewshot.measure import measure
from metarl.fewshot.parts.learner import FewShotLearner
from metarl.fewshot.parts.optimiser import NOTHING
from metarl.fewshot.parts.own import Given, ModuleBackbone
from metarl.fewshot.room import check_tests, check_training
from metarl.fewshot.run import (
    FewShotRun,
    fitted,
    make_learner,
    most_way,
    on_device,
    open_data,
    trainable,
    unused,
    with_backbone,
)
from metarl.ranks import ALONE, Ranks
from metarl.run.driver import Validate, console_of
from metarl.run.driver import train as train_in_folder
from metarl.run.standing import Standing
from metarl.seeding import Streams
from metarl.types import Metrics

VALIDATION_SEED = 0
"""Seed of the validation episodes: the same ones for all runs."""


@checked
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
    run = fitted(with_backbone(run), source)
    config = config_class(run.learner)() if config is None else config
    check_config(run.learner, config)
    asked: int = config.iterations if iterations is None else iterations
    console = console_of(ranks, console)
    check_training(run, config, source)
    check_tests(source, run.validation, run.way, run.shot, run.query)
    _check_shape(run, config, source)
    _tell_items(source, run, console, json=json)
    ranks.share(getattr(config, "tasks", 0) or config.batch_size)
    streams = Streams(run.seed)
    learner = make_learner(run, config, source, streams, ranks)
    if not resume:
        check_used(run, unused(run, source))
        check_used(config, config.unused() if hasattr(config, "unused") else {}, run.learner)
    if asked and getattr(learner, "params", None) == {}:
        raise UserError(f"{NOTHING}.")
    _tell_dropout(learner, console, json=json)
    source = on_device(source, resolve_device(run.device))
    result = train_in_folder(
        folder,
        run,
        trainable(learner),
        lambda number: learner.update(source, number),
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
        validate=_validate(learner, source, _validation(run, source, console, json=json), ranks),
    )
    given = run.backbone if isinstance(run.backbone, Given) else None
    return replace(load(folder, source=source, backbone=given, device=run.device), result=result)


def _tell_dropout(learner: FewShotLearner, console: Console, *, json: bool) -> None:
    """Say that dropout is off, where one's own backbone has some."""
    backbone = learner.setting.backbone
    if isinstance(backbone, ModuleBackbone) and backbone.dropouts:
        text = f"{backbone.name} is used in eval mode: its {backbone.dropouts} dropout layers are off."
        console.out(to_json({"message": text}) if json else text, highlight=False)


def _tell_items(source: Source, run: FewShotRun, console: Console, *, json: bool) -> None:
    """Say what a user's arrays were taken for, where that was a choice."""
    if isinstance(source, ClassData) and source.layout not in ("", "nf"):
        text = f"Items: {source.form.words()}, from the layout {source.layout}; backbone {run.backbone}."
        console.out(to_json({"message": text}) if json else text, highlight=False)


def _check_shape(run: FewShotRun, config: Any, source: Source) -> None:
    """Refuse episodes that the training data cannot give, before a run folder is made."""
    # Learners that are trained with more ways than are tested take no more of them than the data can give.
    way = getattr(config, "train_way", 0) or run.way
    way = min(way, most_way(source) or way)
    try:
        source.episodes("train", [0], replace(run.shape, way=max(way, run.way)), run.seed)
    except UserError as error:
        hint = f" Training has {way} ways: --train-way." if way > run.way else ""
        raise UserError(f"{error}{hint}") from error
    shot: int = getattr(config, "train_shot", 0)
    if shot:
        try:
            source.episodes("train", [0], replace(run.shape, shot=shot - 1, query=1), run.seed)
        except UserError as error:
            raise UserError(f"{error} Training has {shot} items: --train-shot.") from error


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


def _validate(learner: FewShotLearner, source: Source, validation: Manifest | None, ranks: Ranks) -> Validate | None:
    """Return the validation of a learner, as metarl/run/driver.py takes it; None where there are no episodes for it."""
    if validation is None:
        return None

    def validate(standing: Standing, counts: bool) -> Metrics:
        mean = ranks.once(lambda: float(measure(learner, source, validation).values.mean()))
        return {"validation/loss" if source.outputs else "validation/accuracy": mean}

    return validate
