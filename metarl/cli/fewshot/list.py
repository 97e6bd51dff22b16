"""`metarl fewshot list`: learners and data sets that exist, and what there is to say about each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metarl.cli.fewshot.by_option import by_option
from metarl.cli.options import parse
from metarl.cli.tables import plain_table
from metarl.errors import UserError, nearest

LIST = """\
List learners and data sets; or the options of a learner, or the variants of a data set.

examples:
  metarl fewshot list
  metarl fewshot list maml
  metarl fewshot list omniglot
  metarl fewshot list --json"""


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What is listed."""

    name: tyro.conf.Positional[str | None] = None
    """A learner or a data set, to be shown in detail."""
    json: bool = False
    """Print JSON in place of tables."""


def list_command(arguments: list[str]) -> int:
    """Run `metarl fewshot list`."""
    options = parse(ListOptions, arguments, "metarl fewshot list", LIST)

    from metarl.fewshot.data import DATA
    from metarl.fewshot.learners import LEARNERS

    if options.name is not None and options.name not in (*LEARNERS, *DATA):
        raise UserError(f"Unknown learner or data set '{options.name}'.{nearest(options.name, [*LEARNERS, *DATA])}")
    names = (*LEARNERS, *DATA) if options.name is None else (options.name,)
    learners = [_describe_learner(name) for name in names if name in LEARNERS]
    data = [_describe_data(name) for name in names if name in DATA]
    if options.json:
        print(json.dumps({"learners": learners, "data": data} if options.name is None else (learners or data)[0]))
        return 0
    console = Console()
    if options.name is None:
        for title, found in (("learner", learners), ("data", data)):
            table = plain_table(title, "what it is")
            for entry in found:
                table.add_row(f"[bold]{entry['name']}[/]", escape(entry["summary"]))
            console.print(table, highlight=False)
            console.print()
        console.print("More: metarl fewshot list NAME, metarl fewshot train LEARNER --help", style="dim")
        return 0
    found = (learners or data)[0]
    console.print(f"[bold]{found['name']}[/]: {escape(found['summary'])}", highlight=False)
    if data:
        console.print(_table(("variant", "what it is"), found["variants"]), highlight=False)
    if found["options"]:
        by_name = {f"--{key.replace('_', '-')}": value for key, value in found["options"].items()}
        console.print(_table(("option", "default"), by_name), highlight=False)
    return 0


def _table(headers: tuple[str, str], rows: dict[str, Any]) -> Table:
    table = plain_table(*headers)
    for key, value in rows.items():
        table.add_row(key, escape(str(value)))
    return table


def _describe_learner(name: str) -> dict[str, Any]:
    from metarl.config import to_plain
    from metarl.fewshot.learners import LEARNERS, config_class

    return {"name": name, "summary": LEARNERS[name][2], "options": by_option(to_plain(config_class(name)()))}


def _describe_data(name: str) -> dict[str, Any]:
    from metarl.config import to_plain
    from metarl.fewshot.data import DATA, options_of, variants

    options = {key: value for part in options_of(name).values() for key, value in to_plain(part()).items()}
    return {"name": name, "summary": DATA[name][1], "variants": variants(name), "options": options}
