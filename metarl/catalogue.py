"""What there is: families, agents and metrics, as plain data and as tables (`metarl list`)."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.markup import escape
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
    """Print a table of all families and one of all agents."""
    table = _table("Task families (O: observation size, A: action size, T: steps of an episode)")
    for column in ("family", "task", "O", "A", "T", "splits", "source"):
        table.add_column(column, justify="right" if len(column) == 1 else "left")
    for variants in families().values():
        for family in variants:
            found = describe_family(family)
            mark = " [green](default)[/]" if found["default"] and len(variants) > 1 else ""
            table.add_row(
                f"[bold]{found['name']}[/]{mark}\n[dim]{escape(found['summary'])}[/]",
                escape("\n".join(found["parameter_lines"])),
                str(found["observation_size"]),
                str(found["action_size"]),
                str(found["horizon"]),
                ", ".join(found["splits"]),
                escape(found["source"]),
                end_section=True,
            )
    console.print(table)
    agents = _table("Agents")
    agents.add_column("agent", style="bold")
    agents.add_column("what it does")
    for name, (_, _, summary) in AGENTS.items():
        agents.add_row(name, escape(summary))
    console.print(agents)
    console.print(
        "A family's name alone means its default variant. More: metarl list FAMILY, metarl list AGENT, metarl list "
        "--metrics",
        style="dim",
        highlight=False,
    )


def print_one(found: dict[str, Any], console: Console) -> None:
    """Print what `find` found."""
    console.print(f"[bold]{found['name']}[/]: {escape(found['summary'])}")
    if "options" in found:
        table = _table(f"Options (metarl train {found['name']} --help explains them)")
        table.add_column("option")
        table.add_column("default")
        for option, value in found["options"].items():
            table.add_row(f"--{option.replace('_', '-')}", escape(str(value)))
        console.print(table)
        return
    lines = [
        ("source", found["source"]),
        ("gymnasium", found["gymnasium_id"]),
        *(("task", line) for line in found["parameter_lines"]),
        ("splits", ", ".join(found["splits"])),
        ("action", f"{found['action_size']} numbers, {found['action_unit']}"),
        ("episode", f"{found['horizon']} steps of {found['step_seconds']:g} s"),
    ]
    for label, text in lines:
        console.print(f"  [dim]{label:<10}[/] {escape(text)}", highlight=False)
    table = _table("Observation")
    for column in ("index", "meaning", "name in the model", "unit"):
        table.add_column(column, justify="right" if column == "index" else "left")
    for index, row in enumerate(found["observation"]):
        table.add_row(str(index), escape(row["meaning"]), escape(row["name"]), escape(row["unit"]))
    console.print(table)


def print_metrics(console: Console) -> None:
    """Print the glossary."""
    table = _table("Logged figures (TensorBoard tags, columns of progress.csv)")
    for column in ("tag", "meaning", "unit", "better"):
        table.add_column(column)
    for row in metrics():
        table.add_row(escape(row["tag"]), escape(row["meaning"]), escape(row["unit"]), row["good"])
    console.print(table)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")
