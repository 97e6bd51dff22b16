"""`metarl fewshot COMMAND`: what the commands are, and the way to each of them."""

from __future__ import annotations

from importlib import import_module

from metarl.cli.codes import BAD_INPUT
from metarl.errors import UserError, nearest

COMMANDS = ("train", "evaluate", "predict", "audit", "list", "show")
"""Each is a file beside this one, with a function NAME_command."""

USAGE = """\
usage: metarl fewshot COMMAND [OPTIONS]

Train learners that learn new classes from a few items, and measure how well they do.

commands:
  train        train a learner on a data set, or go on with a run; ends with a test on held-out classes
  evaluate     test trained learners on the same episodes: accuracy, curves over inner steps, calibration
  predict      learn new classes from a few files, and tell the class of others; a table and a CSV file
  audit        look for leaks between the splits of a data set, and in its episodes
  list         learners and data sets that exist; the options of a learner
  show         a contact sheet of a data set's images

examples:
  metarl fewshot train proto --data glyphs --way 5 --shot 1
  metarl fewshot evaluate runs/glyphs-proto-5way-1shot-seed0 --shot 1 5 --baseline
  metarl fewshot predict runs/mine --support few --query others
  metarl fewshot audit glyphs
"""


def fewshot_command(arguments: list[str]) -> int:
    """Run `metarl fewshot`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else BAD_INPUT
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        raise UserError(f"Unknown command 'fewshot {command}'.{nearest(command, COMMANDS)}")
    return getattr(import_module(f"metarl.cli.fewshot.{command}"), f"{command}_command")(rest)
