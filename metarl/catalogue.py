"""What there is: families, agents and metrics, as plain data and as tables (`metarl list`)."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from metarl.agents import AGENTS
from metarl.config import to_plain
from metarl.envs import families, get, gymnasium_id
from metarl.envs.family import Family
from metarl.errors import UserError, nearest
from metarl.space import SPLITS
from metarl.tracking import GLOSSARY


def describe_family(family: Family) -> dict[str, Any]:
    """Return everything about one variant of a family as plain data."""
    space = family.space
    return {
        "name": family.full_name,
        "default": families()[family.name][0] is family,
        "summary": family.summary,
        "source": family.source,
        "gymnasium_id": gymnasium_id(family.name),
        "parameters": [
            {
                "name": parameter.name,
                "meaning": parameter.description,
                "unit": parameter.unit,
                "scale": parameter.scale,
                "allowed": parameter.allowed(),
            }
            for parameter in space.parameters
        ],
        "parameter_lines": space.describe(),
        "splits": [split for split in SPLITS if split != "ood" or space.has_ood],
        "observation_size": family.observation_size,
        "action_size": family.action_size,
        "action_unit": family.action_unit,
        "horizon": family.horizon,
        "step_seconds": family.step_seconds,
        "observation": [dataclasses.asdict(observable) for observable in family.observables],
    }


def describe_agent(name: str) -> dict[str, Any]:
    """Return an agent with its options and their defaults as plain data."""
    config, _, summary = AGENTS[name]
    return {"name": name, "summary": summary, "options": to_plain(config())}


def everything() -> dict[str, Any]:
    """Return all families (every variant) and all agents as plain data."""
    return {
        "families": [describe_family(family) for variants in families().values() for family in variants],
        "agents": [describe_agent(name) for name in AGENTS],
    }


def metrics() -> list[dict[str, str]]:
    """Return the glossary of logged figures as plain data."""
    return [{"tag": tag, **dataclasses.asdict(metric)} for tag, metric in GLOSSARY.items()]


def find(name: str) -> dict[str, Any]:
    """Return the family or the agent called `name` as plain data.

    Raises:
        UserError: there is neither; lists what exists.
    """
    if name in AGENTS:
        return describe_agent(name)
    if name.partition("@")[0] in families():
        return describe_family(get(name))
    raise UserError(f"Unknown family or agent '{name}'.{nearest(name, [*families(), *AGENTS])}")


def print_everything(console: Console) -> None:
    """Print all families with their variants, and all agents."""
    console.print("Task families", style="bold underline")
    for variants in families().values():
        first = describe_family(variants[0])
        console.print(f"\n[bold]{variants[0].name}[/]  {escape(first['summary'])}", highlight=False)
        for family in variants:
            found = describe_family(family)
            default = " [green](default)[/]" if found["default"] else ""
            console.print(f"  [bold]@{family.variant}[/]{default}  [dim]{escape(found['source'])}[/]", highlight=False)
            for line in (*found["parameter_lines"], _sizes(found)):
                console.print(Padding(escape(line), (0, 0, 0, 6)), highlight=False)
    console.print("\nAgents", style="bold underline")
    table = _table()
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, (_, _, summary) in AGENTS.items():
        table.add_row(name, escape(summary))
    console.print(table)
    console.print(
        "\nA family's name alone means its default variant. More: metarl list FAMILY, metarl list AGENT, metarl list "
        "--metrics",
        style="dim",
        highlight=False,
    )


def print_one(found: dict[str, Any], console: Console) -> None:
    """Print what `find` found."""
    console.print(f"[bold]{found['name']}[/]: {escape(found['summary'])}", highlight=False)
    if "options" in found:
        console.print(f"Options, explained by `metarl train {found['name']} --help`:", highlight=False)
        table = _table("option", "default")
        for option, value in found["options"].items():
            table.add_row(f"--{option.replace('_', '-')}", escape(str(value)))
        console.print(table)
        return
    facts = _table()
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    facts.add_row("source", escape(found["source"]))
    facts.add_row("gymnasium", found["gymnasium_id"])
    for line in found["parameter_lines"]:
        facts.add_row("task", escape(line))
    facts.add_row("splits", ", ".join(found["splits"]))
    facts.add_row("action", escape(f"{found['action_size']} numbers, {found['action_unit']}"))
    facts.add_row("episode", f"{found['horizon']} steps of {found['step_seconds']:g} s")
    console.print(facts, highlight=False)
    console.print("Observation:")
    table = _table("index", "meaning", "name in the model", "unit")
    for index, row in enumerate(found["observation"]):
        table.add_row(str(index), escape(row["meaning"]), escape(row["name"]), escape(row["unit"]))
    console.print(table, highlight=False)


def print_metrics(console: Console) -> None:
    """Print the glossary."""
    console.print("Logged figures: TensorBoard tags and columns of progress.csv", style="bold")
    table = _table("tag", "meaning", "unit", "better")
    for row in metrics():
        table.add_row(escape(row["tag"]), escape(row["meaning"]), escape(row["unit"]), row["good"])
    console.print(table, highlight=False)


def _sizes(found: dict[str, Any]) -> str:
    """Return sizes, length and splits of a family in one line."""
    return (
        f"{found['observation_size']} observations, {found['action_size']} actions, episodes of {found['horizon']} "
        f"steps; splits {', '.join(found['splits'])}"
    )


def _table(*headers: str) -> Table:
    """Return an empty table, without lines but under the headers."""
    return Table(*headers, box=SIMPLE_HEAD if headers else None, show_header=bool(headers), padding=(0, 2, 0, 0))
