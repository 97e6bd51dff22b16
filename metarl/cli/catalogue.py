"""What there is: families, agents and metrics, as plain data and as tables (`metarl list`)."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from metarl.agents import AGENTS, config_class
from metarl.cli.tables import plain_table
from metarl.config import to_plain
from metarl.envs import families, get, gymnasium_id
from metarl.envs.family import Family
from metarl.envs.metaworld.asking import how_to_get_it
from metarl.envs.metaworld.family import endings
from metarl.envs.metaworld.family import variants as variants_of
from metarl.envs.modifiers.names import MODIFIERS
from metarl.envs.reality import REALITIES, Named
from metarl.envs.registry import LATER, is_family
from metarl.envs.robots.file import split_robot_file
from metarl.errors import UserError, nearest
from metarl.run.glossary import GLOSSARY
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import SPLITS

FEW = 4
"""Variants that a line names."""


def describe_family(family: Family) -> dict[str, Any]:
    """Return everything about one variant of a family as plain data."""
    space = family.space
    return {
        "name": family.full_name,
        "variant": family.full_name.removeprefix(f"{family.name}@"),
        "summary": family.summary,
        "source": family.source,
        "gymnasium_id": gymnasium_id(family.name),
        "parameters": [_describe_parameter(parameter) for parameter in space.parameters],
        "splits": [split for split in SPLITS if split != "ood" or space.has_ood],
        "train_and_test_coincide": space.coincide,
        "fixed_tasks": None if space.fixed is None else space.fixed.plain(),
        "observation_size": family.observation_size,
        "action_size": family.action_size,
        "action_unit": family.action_unit,
        "discrete": family.discrete,
        "choices": list(family.choices),
        "horizon": family.horizon,
        "step_seconds": family.step_seconds,
        "observation": [dataclasses.asdict(observable) for observable in family.observables],
    }


def _describe_parameter(parameter: Parameter) -> dict[str, Any]:
    """Return a parameter as plain data, its ranges also as text."""
    training, ood = parameter.ranges()
    return {**dataclasses.asdict(parameter), "width": parameter.width, "training_text": training, "ood_text": ood}


def describe_agent(name: str) -> dict[str, Any]:
    """Return an agent with its options and their defaults as plain data."""
    return {"name": name, "summary": AGENTS[name].summary, "options": to_plain(config_class(name)())}


def describe_families() -> list[dict[str, Any]]:
    """Return every variant of every family as plain data."""
    return [describe_family(family) for variants in families().values() for family in variants]


def everything() -> dict[str, Any]:
    """Return all families and all agents as plain data."""
    return {
        "families": describe_families(),
        "elsewhere": [describe_later(name) for name in LATER],
        "agents": [describe_agent(name) for name in AGENTS],
    }


def describe_later(name: str) -> dict[str, Any]:
    """Return a family that runs in an interpreter of its own as plain data: its variants, and what it lacks."""
    return {"name": name, "summary": get(name).summary, "variants": list(variants_of(name)), "lacks": how_to_get_it()}


def metrics() -> list[dict[str, str]]:
    """Return the glossary of logged figures as plain data."""
    return [{"tag": tag, **dataclasses.asdict(metric)} for tag, metric in GLOSSARY.items()]


def realities() -> list[dict[str, Any]]:
    """Return the realities that have a name as plain data."""
    return [Named(name, reality).plain() for name, reality in REALITIES.items()]


def print_realities(console: Console) -> None:
    """Print the realities that have a name."""
    table = plain_table("reality", "what it is", "what it changes")
    for name, reality in REALITIES.items():
        changes = ", ".join(f"{key}: {value}" for key, value in reality.plain().items())
        table.add_row(f"[bold]{name}[/]", escape(reality.summary), escape(changes))
    console.print(table, highlight=False)
    console.print(
        "\nOr a YAML file with such keys: metarl evaluate RUN --reality FILE.yaml", style="dim", highlight=False
    )


def find(name: str) -> dict[str, Any]:
    """Return the family or the agent called `name` as plain data.

    Raises:
        UserError: there is neither; lists what exists.
    """
    if name in AGENTS:
        return describe_agent(name)
    if is_family(name):
        return describe_family(get(name))
    raise UserError(f"Unknown family or agent '{name}'.{nearest(name, [*families(), *LATER, *AGENTS])}")


def print_everything(console: Console) -> None:
    """Print the names of all families, their variants, and all agents."""
    table = plain_table("task family", "variants, the default first", "task")
    for name, variants in families().items():
        table.add_row(f"[bold]{name}[/]", ", ".join(family.variant for family in variants), escape(variants[0].summary))
    for name in LATER:
        known = variants_of(name)
        shown = ", ".join(known[:FEW]) + (f", ... {len(known)} in all" if len(known) > FEW else "")
        table.add_row(f"[bold]{name}[/]", shown, escape(get(name).summary))
    console.print(table, highlight=False)
    if lacking := how_to_get_it():
        console.print(f"{', '.join(LATER)}: {escape(lacking)}", style="yellow", highlight=False)
    console.print()
    table = plain_table("agent", "what it is")
    for name, agent in AGENTS.items():
        table.add_row(f"[bold]{name}[/]", escape(agent.summary))
    console.print(table, highlight=False)
    modifiers = " ".join(f"+{word}" for word in MODIFIERS)
    console.print(
        f"\nAny family's name may end in modifiers, as in half-cheetah-vel+mass: {modifiers}\n"
        "More: metarl list --families, metarl list FAMILY, metarl list AGENT, metarl list --metrics",
        style="dim",
        highlight=False,
    )


def print_families(console: Console) -> None:
    """Print every variant of every family and its parameters."""
    for variants in families().values():
        _print_family([describe_family(family) for family in variants], console)
        console.print()


def _print_family(variants: list[dict[str, Any]], console: Console) -> None:
    """Print some variants of one family: a line for each, then a line for each parameter that they do not share."""
    first = variants[0]
    console.print(f"[bold]{escape(first['name'].split('@')[0])}[/]  {escape(first['summary'])}", highlight=False)
    table = plain_table("variant", "obs", "act", "steps", "splits", "source")
    parameters: dict[tuple[str, ...], list[str]] = {}
    for found in variants:
        sizes = (str(found[size]) for size in ("observation_size", "action_size", "horizon"))
        table.add_row(found["variant"], *sizes, _splits(found), escape(found["source"]))
        for parameter in found["parameters"]:
            name = parameter["name"] + (f" ×{parameter['width']}" if parameter["width"] > 1 else "")
            row = (name, *(parameter[key] for key in ("training_text", "ood_text", "scale", "description")))
            parameters.setdefault(row, []).append(found["variant"])
    console.print(Padding(table, (0, 0, 0, 2)), highlight=False)
    table = plain_table("parameter", "training", "ood", "scale", "meaning")
    for row, of in parameters.items():
        which = f" [dim]({', '.join(of)})[/]" if len(of) < len(variants) else ""
        table.add_row(*map(escape, row[:-1]), escape(row[-1]) + which)
    console.print(Padding(table, (1, 0, 0, 2)), highlight=False)


def _splits(found: dict[str, Any]) -> str:
    """Return the splits of a variant, with the sizes of fixed sets."""
    if found["train_and_test_coincide"]:
        text = "train = test"
    elif found["fixed_tasks"] is not None:
        text = f"{found['fixed_tasks']['train']} train, {found['fixed_tasks']['test']} test"
    else:
        text = "train, test"
    return f"{text}, ood" if "ood" in found["splits"] else text


def print_one(name: str, console: Console) -> None:
    """Print everything about a family, with all its variants where the name is of none, or about an agent.

    Raises:
        UserError: there is neither.
    """
    found = find(name)
    if "options" in found:
        console.print(f"[bold]{found['name']}[/]: {escape(found['summary'])}", highlight=False)
        console.print(f"Options, explained by `metarl train {found['name']} --help`:", highlight=False)
        table = plain_table("option", "default")
        for option, value in found["options"].items():
            table.add_row(f"--{option.replace('_', '-')}", escape(str(value)))
        console.print(table)
        return
    variants = [describe_family(family) for family in families().get(name, [])] or [found]
    _print_family(variants, console)
    note = " Train and test tasks coincide: the space is a few choices." if found["train_and_test_coincide"] else ""
    family_name = found["name"].partition("@")[0]
    default = found["name"] == get(family_name).full_name
    options = "" if default else f', variant="{found["variant"]}"'
    make = f'gymnasium.make("{found["gymnasium_id"]}"{options})'
    if split_robot_file(name)[0]:
        make = f'metarl.envs.FamilyEnv("{name}")'
    kind = f"{found['action_size']} {'alternatives' if found['discrete'] else 'numbers'}"
    if len(found["choices"]) > 1:
        kind = f"{len(found['choices'])} choices of {', '.join(map(str, found['choices']))} alternatives"
    console.print(
        escape(
            f"\n{found['name']}: {make}. A step is "
            f"{found['step_seconds']:g} s; an action is {kind}, {found['action_unit']}.{note}\n"
        ),
        highlight=False,
    )
    if family_name in LATER:
        known = variants_of(family_name)
        text = f"Variants of {family_name}: {', '.join(known)}. {endings(family_name)}."
        console.print(escape(text), highlight=False)
        if lacking := how_to_get_it():
            console.print(escape(lacking), style="yellow", highlight=False)
        console.print()
    table = plain_table("observation", "meaning", "name in the model", "unit")
    for index, row in enumerate(found["observation"]):
        table.add_row(str(index), escape(row["meaning"]), escape(row["name"]), escape(row["unit"]))
    console.print(table, highlight=False)


def print_metrics(console: Console) -> None:
    """Print the glossary."""
    console.print("Logged figures: TensorBoard tags and columns of progress.csv", style="bold")
    table = plain_table("tag", "meaning", "unit", "better")
    for row in metrics():
        table.add_row(escape(row["tag"]), escape(row["meaning"]), escape(row["unit"]), row["good"])
    console.print(table, highlight=False)
