"""The `metarl` command: train, evaluate, play, list, check, render, export, fewshot, warm, bench, fingerprint.

Whatever is wrong with what the user gave ends in one line on standard error and exit code 2 (ending.py tells of every
end). A command's module is imported when the command is asked for, and torch and mujoco by the commands after their
options have been read, so that a question for help is answered at once. What this file imports is little, so that
almost from its start on the process can be interrupted in order.
"""

from __future__ import annotations

import os
import sys

from metarl.cli import ending
from metarl.cli.codes import BAD_INPUT, INTERRUPTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    "train",
    "evaluate",
    "identify",
    "play",
    "list",
    "check",
    "render",
    "export",
    "fewshot",
    "warm",
    "bench",
    "fingerprint",
)
"""Each is a module here, with a function NAME_command, imported when it is asked for."""

USAGE = """\
usage: metarl COMMAND [OPTIONS]

Train agents that adapt to new tasks in a few episodes, and measure how well they do.

commands:
  train        meta-train an agent on a family of tasks, or go on with a run
  evaluate     adapt trained agents to held-out tasks: table, picture, CSV, TensorBoard
  identify     find unknown parameters of a system from a log of it, with intervals
  play         reference players on bandits and tabular MDPs, beside the published figures
  list         families, variants and agents that exist; what every metric means
  check        a family before anyone trains on it: what it sees and pays, whether its physics holds
  render       a GIF of one task before and after adaptation; a grid of many tasks
  export       a trained agent as a folder that runs without metarl: weights, manifest, runtime, ONNX
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
        argv: arguments after the command's name. None: those of the process, which ends here with the exit code.
    """
    if argv is not None:
        return _run(list(argv))
    ending.watch()
    try:
        code = _run(sys.argv[1:])
    except SystemExit as asked:
        # Of whatever reads the options, after their help.
        code = asked.code if isinstance(asked.code, int) else 0
    ending.end(code)


def _run(arguments: list[str]) -> int:
    """Run a command and return its exit code; say what is wrong."""
    try:
        code = _dispatch(arguments)
        if "metarl.envs.mujoco_log" in sys.modules:
            sys.modules["metarl.envs.mujoco_log"].report()
        # What has been interrupted has perhaps nobody to show anything to.
        if code != INTERRUPTED:
            sys.stdout.flush()
        return code
    except BaseException as error:
        from metarl.errors import one_line, was_told
        from metarl.problems import problem_of

        if ending.received or isinstance(error, KeyboardInterrupt):
            ending.say("interrupted")
            return INTERRUPTED
        problem = problem_of(error)
        # Whoever read the output has enough (`metarl list | head`); rich ends the process then.
        if problem is None and BrokenPipeError in (type(error), type(error.__context__)):
            return INTERRUPTED
        if problem is None:
            raise
        # A disk that is full was perhaps told of when it stopped a training, and is so still.
        if not (isinstance(error, OSError) and was_told(str(error))):
            ending.say(f"error: {one_line(problem)}")
        return BAD_INPUT


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else BAD_INPUT

    from metarl.version import __version__

    if arguments[0] == "--version":
        print(f"metarl {__version__}")
        return 0

    import io
    from importlib import import_module

    from metarl.errors import UserError, nearest
    from metarl.run.allocator import keep_freed_memory

    # Where it is gone, nothing of what follows can be found.
    os.getcwd()  # noqa: PTH109
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
    for name in ("COLUMNS", "LINES"):
        # Of a terminal of no width nothing would be seen.
        if not os.environ.get(name, "1").strip("0"):
            del os.environ[name]
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        raise UserError(f"Unknown command '{command}'.{nearest(command, COMMANDS)}")
    if ending.rank() and (command, *rest[:1]) != ("fewshot", "train") and command != "train":
        raise UserError(f"Got `metarl {command}` in several processes. Only train and fewshot train share work out.")
    return getattr(import_module(f"metarl.cli.{command}"), f"{command}_command")(rest)
