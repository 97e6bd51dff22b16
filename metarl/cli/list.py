"""`metarl list`: families, agents and metrics that exist."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial

import tyro
from rich.console import Console

from metarl.cli.options import parse
from metarl.errors import UserError

LIST = """\
List task families with their variants, and agents; or everything about one of them.

examples:
  metarl list
  metarl list --families
  metarl list half-cheetah-vel@maml17
  metarl list --metrics
  metarl list --realities
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
    realities: bool = False
    """List the realities that have a name, for `metarl evaluate --reality`, and what they change."""
    json: bool = False
    """Print JSON in place of tables."""


def list_command(arguments: list[str]) -> int:
    """Run `metarl list`."""
    options = parse(ListOptions, arguments, "metarl list", LIST)

    from metarl.cli import catalogue

    if sum((options.name is not None, options.families, options.metrics, options.realities)) > 1:
        raise UserError("Got several of NAME, --families, --metrics and --realities. Give one of them.")
    if options.name is not None:
        plain, show = partial(catalogue.find, options.name), partial(catalogue.print_one, options.name)
    elif options.metrics:
        plain, show = catalogue.metrics, catalogue.print_metrics
    elif options.realities:
        plain, show = catalogue.realities, catalogue.print_realities
    elif options.families:
        plain, show = catalogue.describe_families, catalogue.print_families
    else:
        plain, show = catalogue.everything, catalogue.print_everything
    if options.json:
        print(json.dumps(plain()))
    else:
        show(console=Console())
    return 0
