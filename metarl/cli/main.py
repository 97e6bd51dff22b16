"""The `metarl` command: train, evaluate, play, list, render, fewshot, warm, bench, fingerprint.

Whatever is wrong with what the user gave ends in one line on standard error and exit code 2. A command's module is
imported when the command is asked for, and torch and mujoco by the commands after their options have been read, so that
a question for help is answered at once.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from metarl.cli.codes import BAD_INPUT, INTERRUPTED
from metarl.errors import UserError, nearest, one_line
from metarl.run.allocator import keep_freed_memory
from metarl.version import __version__

COMMANDS = ("train", "evaluate", "play", "list", "render", "fewshot", "warm", "bench", "fingerprint")
"""Each is a module here, with a function NAME_command, imported when it is asked for."""

USAGE = """\
usage: metarl COMMAND [OPTIONS]

Train agents that adapt to new tasks in a few episodes, and measure how well they do.

commands:
  train        meta-train an agent on a family of tasks, or go on with a run
  evaluate     adapt trained agents to held-out tasks: table, picture, CSV, TensorBoard
  play         reference players on bandits and tabular MDPs, beside the published figures
  list         families, variants and agents that exist; what every metric means
  render       a GIF of one task before and after adaptation; a grid of many tasks
  fewshot      supervised few-shot learning: train, evaluate, predict, audit, list, show
  warm         compile what robots need on a GPU, ahead of their first use
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
        print(f"metarl{_rank()}: error: {one_line(str(error))}", file=sys.stderr, flush=True)
        return BAD_INPUT
    except RuntimeError as error:
        # Torch is loaded by now: it, or Warp, has raised this.
        from metarl.devices import device_problem

        problem = device_problem(error)
        if problem is None:
            raise
        print(f"metarl{_rank()}: error: {problem[:1].upper()}{problem[1:]}", file=sys.stderr, flush=True)
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
        print(
            f"metarl{_rank()}: error: {one_line(str(error))}. Check the path, its permissions and the free space.",
            file=sys.stderr,
        )
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
    return getattr(import_module(f"metarl.cli.{command}"), f"{command}_command")(rest)
