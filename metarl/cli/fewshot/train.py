"""`metarl fewshot train`: train a learner in a run folder, and test it on held-out classes at the end."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metarl.cli.codes import BAD_INPUT, INTERRUPTED
from metarl.cli.fewshot.data_options import parse_with_data
from metarl.cli.fewshot.rows import EPISODES, row_of, write_manifest
from metarl.cli.options import parse
from metarl.config import MOST_STEPS
from metarl.errors import UserError, nearest
from metarl.run.settings import Checkpoint, Device

if TYPE_CHECKING:
    from metarl.fewshot.episodes import Source
    from metarl.fewshot.loading import Trained
    from metarl.fewshot.run import FewShotRun

TRAIN = """\
Train a few-shot learner on a data set, and test it on held-out classes.

usage: metarl fewshot train LEARNER [OPTIONS]
       metarl fewshot train --resume RUN [--iterations N] [--checkpoint WHICH]

The run folder holds config.yaml, checkpoints, progress.csv and TensorBoard events. A run that was stopped or killed
goes on, bit for bit, with --resume. At every checkpoint the learner is tested on the same episodes of the validation
classes, where the data have such; the test at the end is of the best checkpoint then, else of the last one.

examples:
  metarl fewshot train proto --data glyphs --way 5 --shot 1
  metarl fewshot train maml --data omniglot --data-root data/omniglot --way 5 --shot 1 --inner-rate 0.4
  metarl fewshot train --resume runs/glyphs-proto-5way-1shot-seed0 --iterations 4000"""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What is trained on, and where the run is kept."""

    data: str = "glyphs"
    """Data, as NAME or NAME@VARIANT (see `metarl fewshot list`); several with + between them are a collection."""
    data_root: Path | None = None
    """Folder of the data, or the folder that holds it; the environment variable METARL_DATA if not given."""
    size: int = 0
    """Height and width that images are brought to; 0: the data's own."""
    way: int = 5
    """Classes of an episode."""
    shot: int = 1
    """Support items of each class; of the whole episode in regression."""
    query: int = 5
    """Query items of each class; of the whole episode in regression."""
    backbone: str = "auto"
    """Network from items to features: auto (conv4 for images, conv1d for signals, else mlp), mlp, conv4, resnet12,
    conv1d, identity (items are features already), or one's own by its address, file.py:name or package.module:name."""
    freeze_backbone: bool = False
    """The weights of one's own backbone stay as they are."""
    width: int = 64
    """Channels of conv4 and conv1d; of the first block of resnet12."""
    hidden: tuple[int, ...] = (40, 40)
    """Units of the layers of mlp."""
    channels_last: bool = True
    """Memory layout of the convolutions, which is the faster one on CPUs."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: convolutions multiply in it, which is faster where a processor has it; the rest stays in float32."""
    batch_norm: Literal["support", "transductive", "running"] = "support"
    """What batch norm takes its statistics over: the support set alone; support and queries each over themselves, so
    that the queries of a test are seen together; or all of training."""
    validation: int = 200
    """Validation episodes at every checkpoint; 0: none."""
    test_episodes: int = EPISODES
    """Test episodes at the end; 0: no test."""
    seed: int = 0
    """Where all randomness comes from."""
    out: Path | None = None
    """Run folder, which must not exist yet; runs/DATA-LEARNER-Nway-Kshot-seedSEED if not given."""
    device: Device = "cpu"
    """Where the networks and the data live: cpu, cuda, a GPU by its number (cuda:1), or auto, which is
    cuda where there is one."""
    deterministic: bool = False
    """Give the same numbers in every run, bit for bit. A CPU does so anyway; a GPU is slower then."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    checkpoint_every: int = 200
    """Iterations from one checkpoint to the next."""
    log_every: int = 10
    """Iterations of a logged row, which has their means."""
    json: bool = False
    """Show progress as JSON lines, for scripts."""


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Go on with a run. All other settings are those it was started with."""

    resume: Path
    """Run folder."""
    iterations: int | None = None
    """Iterations in the end; as many as it was last asked for if not given."""
    checkpoint: Checkpoint = "last"
    """Which checkpoint to go on from."""
    device: Device | None = None
    """Where the networks and the data live from now on, if elsewhere than before."""
    deterministic: bool = False
    """From now on give the same numbers in every run; what was so stays so."""
    data_root: Path | None = None
    """Folder of the data, if elsewhere than before."""
    backbone: str | None = None
    """Address of its own backbone, file.py:name, where that is not found."""
    trust: bool = False
    """Execute the file of its own backbone though you did not make the run on this machine: read it first."""
    test_episodes: int = EPISODES
    """Test episodes at the end; 0: no test."""
    json: bool = False
    """Show progress as JSON lines, for scripts."""


def train_command(arguments: list[str]) -> int:
    """Run `metarl fewshot train`."""
    if any(argument.partition("=")[0] == "--resume" for argument in arguments):
        return _resume(parse(ResumeOptions, arguments, "metarl fewshot train", TRAIN))

    from metarl.fewshot.learners import LEARNERS, config_class

    if not arguments or arguments[0] in ("-h", "--help"):
        names = "\n".join(f"  {name:<10} {LEARNERS[name][2]}" for name in LEARNERS)
        print(f"{TRAIN}\n\nlearners (metarl fewshot train LEARNER --data DATA --help lists the options):\n{names}")
        return 0 if arguments else BAD_INPUT
    name = arguments[0]
    if name.startswith("-"):
        raise UserError(f"Got '{name}' where a learner is needed first.{nearest(name, LEARNERS)}")
    parts = {"run": TrainOptions, "learner": config_class(name)}
    description = f"{name}: {LEARNERS[name][2]}.\n\n{TRAIN}"
    prog = f"metarl fewshot train {name}"
    options, data_options = parse_with_data(arguments[1:], prog, description, TrainOptions.data, **parts)
    return _train(name, options.run, options.learner, data_options)


def _train(name: str, options: TrainOptions, config: Any, data_options: dict[str, Any]) -> int:
    from metarl.devices import resolve_device
    from metarl.fewshot.run import FewShotRun, open_data

    # Before the data are read, which may take a while.
    resolve_device(options.device)
    fields = {field.name for field in dataclasses.fields(FewShotRun)}
    given: dict[str, Any] = {key: value for key, value in vars(options).items() if key in fields}
    run = FewShotRun(learner=name, data_options=data_options, **given)
    source = open_data(run)
    size = f"{options.shot}shot" if source.outputs else f"{options.way}way-{options.shot}shot"
    data = re.sub(r"[^\w.+@-]+", "-", options.data).strip("-")
    folder = options.out or Path("runs") / f"{data}-{name}-{size}-seed{options.seed}"
    return _run(folder, run, source, config, config.iterations, None, options.test_episodes, json_lines=options.json)


def _resume(options: ResumeOptions) -> int:
    from metarl.fewshot.run import open_data, stored

    run, config, iterations = stored(options.resume, options.data_root, backbone=options.backbone, trust=options.trust)
    run = dataclasses.replace(
        run, device=options.device or run.device, deterministic=options.deterministic or run.deterministic
    )
    iterations = iterations if options.iterations is None else options.iterations
    test_episodes, json_lines = options.test_episodes, options.json
    source = open_data(run)
    return _run(
        options.resume, run, source, config, iterations, options.checkpoint, test_episodes, json_lines=json_lines
    )


def _run(
    folder: Path,
    run: FewShotRun,
    source: Source,
    config: Any,
    iterations: int,
    checkpoint: Checkpoint | None,
    test_episodes: int,
    *,
    json_lines: bool,
) -> int:
    """Train in a run folder, from a checkpoint where one is named, and test what was trained."""
    from metarl.devices import resolve_device
    from metarl.fewshot.room import check_tests
    from metarl.fewshot.training import train
    from metarl.ranks import join

    if not 0 <= test_episodes <= MOST_STEPS:
        raise UserError(
            f"Got --test-episodes {test_episodes}. Allowed: from 0, which leaves the test out, to {MOST_STEPS}."
        )
    if test_episodes:
        check_tests(source, test_episodes, run.way, run.shot, run.query)
        try:
            source.episodes("test", [0], run.shape, 0)
        except UserError as error:
            raise UserError(f"{error} Or leave out the test at the end, by --test-episodes 0.") from error
    with join(resolve_device(run.device)) as ranks:
        trained = train(
            folder,
            run,
            source,
            config,
            iterations=iterations,
            resume=checkpoint is not None,
            checkpoint=checkpoint or "last",
            json=json_lines,
            ranks=ranks,
        )
    result = trained.result
    assert result is not None
    if result.interrupted or not ranks.first:
        if json_lines and ranks.first:
            print(json.dumps({"run": str(folder), **dataclasses.asdict(result)}))
        return INTERRUPTED if result.interrupted else 0
    found = _final_test(trained, test_episodes) if test_episodes else None
    if json_lines:
        print(json.dumps({"run": str(folder), **dataclasses.asdict(result), "test": found}))
    else:
        print(
            f"{'' if found is None else _in_words(found, trained)}"
            f"Run folder   {folder}\n"
            f"Evaluate     metarl fewshot evaluate {folder}{'' if source.outputs else ' --baseline --both'}\n"
            f"TensorBoard  tensorboard --logdir {folder}"
        )
    return 0


def _final_test(trained: Trained, episodes: int) -> dict[str, Any]:
    """Test at the run's way and shot, write the result into the run folder, and return it as plain data."""
    from metarl.devices import repeatable, resolve_threads, torch_threads
    from metarl.fewshot import manifest as manifests
    from metarl.fewshot.report import write
    from metarl.fewshot.summary import Test, summarise
    from metarl.run.folder import RunFolder

    folder = RunFolder(trained.folder).results("test")
    manifest = manifests.make(trained.source, "test", episodes, trained.run.shape, 0)
    with torch_threads(resolve_threads(trained.run.threads)), repeatable(on=trained.run.deterministic):
        rows = (row_of(trained.run.learner, [trained], manifest),)
    test = Test(manifest=manifest, file=write_manifest(manifest, folder), rows=rows)
    summary = summarise([test], trained.source, 0)
    write([test], summary, folder)
    return {"measure": summary["measure"], **summary["tests"][0]}


def _in_words(found: dict[str, Any], trained: Trained) -> str:
    from metarl.fewshot.report import figure

    row, classes = found["rows"][0], "tasks" if trained.source.outputs else "classes"
    value = figure(row, found["measure"]).replace("\\", "")
    return (
        f"Test         {found['measure']} {value}, 95% interval, {found['episodes']} episodes, held-out {classes}\n"
        f"             {found['label']}, batch norm {row['batch_norm']}, checkpoint {trained.checkpoint} "
        f"(iteration {trained.iteration})\n"
    )
