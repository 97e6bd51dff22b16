"""The `metarl` command: train, evaluate, play, list, render, fewshot, bench, fingerprint.

Whatever is wrong with what the user gave ends in one line on standard error and exit code 2. torch and mujoco are
imported by the commands, after their options have been read, so that a question for help is answered at once.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from metarl.cli.evaluate import evaluate_command
from metarl.cli.fewshot import fewshot_command
from metarl.cli.options import BAD_INPUT, INTERRUPTED, Which, joined, parse
from metarl.cli.play import play_command
from metarl.cli.render import render_command
from metarl.errors import UserError, nearest
from metarl.run.allocator import keep_freed_memory
from metarl.run.settings import Device, Engine
from metarl.version import __version__

if TYPE_CHECKING:
    from metarl.run.settings import RunConfig

DEFAULT_FAMILY = "half-cheetah-vel"

USAGE = """\
usage: metarl COMMAND [OPTIONS]

Train agents that adapt to new tasks in a few episodes, and measure how well they do.

commands:
  train        meta-train an agent on a family of tasks, or go on with a run
  evaluate     adapt trained agents to held-out tasks: table, picture, CSV, TensorBoard
  play         reference players on bandits and tabular MDPs, beside the published figures
  list         families, variants and agents that exist; what every metric means
  render       a GIF of one task before and after adaptation; a grid of many tasks
  fewshot      supervised few-shot learning: train, evaluate, audit, list, show
  bench        speed of the engines and of a meta-iteration, on this machine
  fingerprint  a hash of the first steps of every family

options:
  -h, --help   show this text; `metarl COMMAND --help` explains a command
  --version    show the version

examples:
  metarl train maml-trpo --family half-cheetah-vel --seed 1
  metarl evaluate runs/half-cheetah-vel@v5-maml-trpo-seed1 --random
  metarl fewshot train proto --data glyphs --way 5 --shot 1
  tensorboard --logdir runs
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments after the command's name; those of the process if None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "fewshot" not in arguments[:2]:
        # While the engine's threads step the worlds, torch's idle threads must sleep, not spin: on busy cores an update
        # takes many times as long otherwise. Without worlds it is the other way round: waking them for every small
        # product takes three times as long as the product. OpenMP reads this once, when the commands import torch.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that has no α shows a question mark.
            stream.reconfigure(errors="replace")
    try:
        return _dispatch(arguments)
    except UserError as error:
        print(f"metarl{_rank()}: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("metarl: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough (`metarl list | head`). Python flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except OSError as error:
        # Folders that may not be written to, files that may not be read, full disks.
        print(f"metarl{_rank()}: error: {error}. Check the path, its permissions and the free space.", file=sys.stderr)
        return BAD_INPUT


def _rank() -> str:
    """Return which of several processes this is; nothing where it is alone."""
    size = os.environ.get("WORLD_SIZE", "1")
    return "" if size == "1" else f" (rank {os.environ.get('RANK', '?')} of {size})"


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else BAD_INPUT
    if arguments[0] == "--version":
        print(f"metarl {__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        raise UserError(f"Unknown command '{command}'.{nearest(command, COMMANDS)}")
    if _rank() and (command, *rest[:1]) != ("fewshot", "train") and command != "train":
        raise UserError(f"Got `metarl {command}` in several processes. Only train and fewshot train share work out.")
    return COMMANDS[command](rest)


# -- train ------------------------------------------------------------------------------------------------------------

TRAIN = """\
Meta-train an agent on a family of tasks.

usage: metarl train AGENT [OPTIONS]
       metarl train --resume RUN [--iterations N] [--checkpoint WHICH]

The run folder holds config.yaml, checkpoints, progress.csv and TensorBoard events. A run that was stopped or killed
goes on, bit for bit, with --resume.

examples:
  metarl train maml-trpo --family half-cheetah-vel --seed 1
  metarl train maml-trpo --family point-nav --inner-rate 0.5 --iterations 100 --out runs/point
  metarl train --resume runs/point --iterations 200"""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What is trained on, and where the run is kept."""

    family: str = DEFAULT_FAMILY
    """Task family, as NAME or NAME@VARIANT, with +MODIFIER for more to vary (see `metarl list`)."""
    seed: int = 0
    """Where all randomness comes from."""
    out: Path | None = None
    """Run folder, which must not exist yet; runs/FAMILY-AGENT-seedSEED if not given."""
    device: Device = "cpu"
    """Where the networks live; auto is cuda where there is one."""
    engine: Engine = "auto"
    """What steps the worlds: cpu, gpu (mujoco_warp, on the device), or auto: gpu where the device is one."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    checkpoint_every: int = 10
    """Iterations from one checkpoint to the next."""
    json: bool = False
    """Show progress as JSON lines, for scripts."""


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Go on with a run. All other settings are those it was started with."""

    resume: Path
    """Run folder."""
    iterations: int | None = None
    """Iterations in the end; as many as it was last asked for if not given."""
    checkpoint: Which = "last"
    """Which checkpoint to go on from."""
    json: bool = False
    """Show progress as JSON lines, for scripts."""


def train_command(arguments: list[str]) -> int:
    """Run `metarl train`."""
    if any(argument.partition("=")[0] == "--resume" for argument in arguments):
        return _resume(parse(ResumeOptions, arguments, "metarl train", TRAIN))

    from metarl.agents import AGENTS, config_class

    if not arguments or arguments[0] in ("-h", "--help"):
        names = "\n".join(f"  {name:<10} {AGENTS[name][2]}" for name in _trainable())
        print(f"{TRAIN}\n\nagents (metarl train AGENT --help lists the options):\n{names}")
        return 0 if arguments else BAD_INPUT
    name = arguments[0]
    if name.startswith("-"):
        raise UserError(f"Got '{name}' where an agent is needed first.{nearest(name, _trainable())}")
    if name not in _trainable():
        problem = f"The agent '{name}' is never trained." if name in AGENTS else f"Unknown agent '{name}'."
        raise UserError(f"{problem}{nearest(name, _trainable())}")
    combined = joined(run=TrainOptions, agent=config_class(name))
    options: Any = parse(combined, arguments[1:], f"metarl train {name}", f"{name}: {AGENTS[name][2]}.\n\n{TRAIN}")
    return _train(name, options.run, options.agent)


def _trainable() -> list[str]:
    """Return the agents that learn from training tasks."""
    from metarl.agents import AGENTS

    return [name for name in AGENTS if name != "random"]


def _train(name: str, options: TrainOptions, config: Any) -> int:
    from metarl.envs import get
    from metarl.envs.registry import address
    from metarl.run.settings import RunConfig

    family = get(options.family)
    run = RunConfig(
        family=address(family),
        agent=name,
        seed=options.seed,
        device=options.device,
        engine=options.engine,
        threads=options.threads,
        checkpoint_every=options.checkpoint_every,
    )
    folder = options.out or Path("runs") / f"{family.full_name}-{name}-seed{options.seed}"
    return _run(folder, run, config, config.iterations, json_lines=options.json)


def _resume(options: ResumeOptions) -> int:
    from metarl.agents import config_class
    from metarl.config import from_plain
    from metarl.run.folder import RunFolder
    from metarl.run.settings import RunConfig

    run, plain = RunFolder(options.resume).settings(RunConfig)
    config = from_plain(config_class(run.agent), plain)
    iterations = RunFolder(options.resume).iterations() if options.iterations is None else options.iterations
    return _run(options.resume, run, config, iterations, checkpoint=options.checkpoint, json_lines=options.json)


def _run(
    folder: Path, run: RunConfig, config: Any, iterations: int, *, checkpoint: Which | None = None, json_lines: bool
) -> int:
    """Train in a run folder, from a checkpoint where one is named."""
    from metarl.agents import make
    from metarl.devices import resolve_device, resolve_threads
    from metarl.envs import get, make_worlds
    from metarl.envs.modifiers.switching import check_trials
    from metarl.envs.registry import describe_engine
    from metarl.ranks import join
    from metarl.run.driver import iterations_of, train
    from metarl.seeding import Streams

    family = get(run.family)
    streams = Streams(run.seed)
    device = resolve_device(run.device)
    with join(device) as ranks:
        agent = make(run.agent, config, family.spec(), streams, device, ranks)
        check_trials(family, agent.trial)
        threads = run.threads if ranks.local == 1 else resolve_threads(run.threads)
        env = make_worlds(
            family, ranks.share(config.worlds), threads=threads, engine=run.engine, device=device, ranks=ranks
        )
        result = train(
            folder,
            run,
            agent,
            iterations_of(agent, env, family.space.sample, streams),
            streams,
            iterations,
            resume=checkpoint is not None,
            checkpoint=checkpoint or "last",
            json=json_lines,
            ranks=ranks,
        )
    if not ranks.first:
        return INTERRUPTED if result.interrupted else 0
    if json_lines:
        print(json.dumps({"run": str(folder), **dataclasses.asdict(result)}))
    elif not result.interrupted:
        print(
            f"Run folder   {folder}\n"
            f"Physics      {describe_engine(env)}\n"
            f"Evaluate     metarl evaluate {folder} --random\n"
            f"TensorBoard  tensorboard --logdir {folder}"
        )
    return INTERRUPTED if result.interrupted else 0


# -- list -------------------------------------------------------------------------------------------------------------

LIST = """\
List task families with their variants, and agents; or everything about one of them.

examples:
  metarl list
  metarl list --families
  metarl list half-cheetah-vel@maml17
  metarl list --metrics
  metarl list --json"""


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What is listed."""

    name: tyro.conf.Positional[str | None] = None
    """A family (NAME or NAME@VARIANT, with modifiers if wanted) or an agent, to be shown in detail."""
    families: bool = False
    """List every variant of every family: parameter ranges and units, sizes, episode length, splits, source."""
    metrics: bool = False
    """List what every logged figure means."""
    json: bool = False
    """Print JSON in place of tables."""


def list_command(arguments: list[str]) -> int:
    """Run `metarl list`."""
    options = parse(ListOptions, arguments, "metarl list", LIST)

    from metarl.cli import catalogue

    if sum((options.name is not None, options.families, options.metrics)) > 1:
        raise UserError("Got several of NAME, --families and --metrics. Give one of them.")
    if options.name is not None:
        plain, show = partial(catalogue.find, options.name), partial(catalogue.print_one, options.name)
    elif options.metrics:
        plain, show = catalogue.metrics, catalogue.print_metrics
    elif options.families:
        plain, show = catalogue.describe_families, catalogue.print_families
    else:
        plain, show = catalogue.everything, catalogue.print_everything
    if options.json:
        print(json.dumps(plain()))
    else:
        show(console=Console())
    return 0


# -- bench ------------------------------------------------------------------------------------------------------------

BENCH = """\
Measure speed on this machine, contenders interleaved in one run: medians and ratios.

usage: metarl bench {engines,maml,rl2,fewshot,gpu} [OPTIONS]

  engines   env-steps/s of the CPU engine, its open-loop ceiling, Gymnasium's vector environments and EnvPool
  maml      one meta-iteration by part, the task-batched forms against a loop over tasks
  rl2       what the memory costs while acting, and in a training pass beside a bare nn.GRU; transformer beside GRU
  fewshot   supervised meta-updates by every executor, Reptile and episode sampling, beside loops over tasks
  gpu       the GPU engine: env-steps/s beside the CPU engine, iterations of two agents, few-shot updates

examples:
  metarl bench engines --family half-cheetah-vel --worlds 32 256 1024
  metarl bench engines --family all
  metarl bench maml --tasks 40 --episodes 20 --json
  metarl bench rl2 --width 64 128
  metarl bench fewshot --cases sinusoid sampling"""


def bench_command(arguments: list[str]) -> int:
    """Run `metarl bench`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(BENCH)
        return 0 if arguments else BAD_INPUT
    kinds = ("engines", "maml", "rl2", "fewshot", "gpu")
    kind = arguments[0]
    if kind not in kinds:
        raise UserError(f"Unknown benchmark '{kind}'.{nearest(kind, kinds)}")

    from metarl.bench import engines as bench
    from metarl.bench import fewshot as bench_fewshot
    from metarl.bench import gpu as bench_gpu
    from metarl.bench import learning as bench_learning

    config_class, run = {
        "engines": (bench.EnginesConfig, bench.run_engines),
        "maml": (bench_learning.MamlConfig, bench_learning.run_maml),
        "rl2": (bench_learning.MemoryConfig, bench_learning.run_rl2),
        "fewshot": (bench_fewshot.FewShotConfig, bench_fewshot.run_fewshot),
        "gpu": (bench_gpu.GpuConfig, bench_gpu.run_gpu),
    }[kind]
    config: Any = parse(config_class, arguments[1:], f"metarl bench {kind}", BENCH)
    report = run(config)
    if config.json:
        print(json.dumps(report))
    return 0


# -- fingerprint ------------------------------------------------------------------------------------------------------

FINGERPRINT = """\
Hash the first steps of families from fixed seeds: a family whose fingerprint changed has become another task.

The tests compare all of them with the table tests/fingerprints.json. After a change that is meant, write the table anew
and look at what changed in it.

examples:
  metarl fingerprint
  metarl fingerprint ant-dir half-cheetah-vel@pearl19
  metarl fingerprint --update tests/fingerprints.json"""


@dataclass(frozen=True, kw_only=True)
class FingerprintOptions:
    """Which families."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Families: NAME@VARIANT, or NAME for all its variants; all families if none is given."""
    update: Path | None = None
    """Table to write the fingerprints into; entries of families that are not named stay."""
    json: bool = False
    """Print JSON in place of a table."""


def fingerprint_command(arguments: list[str]) -> int:
    """Run `metarl fingerprint`."""
    options = parse(FingerprintOptions, arguments, "metarl fingerprint", FINGERPRINT)

    from metarl.envs import fingerprint

    found = fingerprint.fingerprints(options.names)
    if options.update is not None:
        fingerprint.update(options.update, found)
    if options.json:
        print(json.dumps(found))
    else:
        width = max(map(len, found))
        for name, entry in found.items():
            print(f"{name:<{width}}  {entry['first_steps']}")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train_command,
    "evaluate": evaluate_command,
    "play": play_command,
    "list": list_command,
    "render": render_command,
    "fewshot": fewshot_command,
    "bench": bench_command,
    "fingerprint": fingerprint_command,
}
