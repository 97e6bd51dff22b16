"""All families by name, `name` (its default variant) or `name@variant`; and each as a Gymnasium id.

Either name may be followed by modifiers: `name+mass`, see modifiers/names.py.

Gymnasium has no hook for packages that are installed but not imported, so the ids exist once `metarl.envs` has been
imported: `import metarl.envs`, or the id with its module, `gymnasium.make("metarl.envs:metarl/AntDir-v0")`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import gymnasium

from metarl.arguments import checked
from metarl.envs.definition import check_definition
from metarl.envs.external.adapter import source_of
from metarl.envs.external.child import Unfit, import_source
from metarl.envs.families import FILES
from metarl.envs.family import Family
from metarl.envs.horizon import HORIZON, with_horizon, without_horizon
from metarl.envs.metaworld import family as metaworld
from metarl.envs.modifiers.apply import modify
from metarl.envs.modifiers.names import parse, split_name, take_horizon
from metarl.envs.origins import Origin, files_of, present
from metarl.envs.robots.file import read_file, split_robot_file
from metarl.envs.robots.robot_family import RobotFamily, robot_family
from metarl.errors import UserError, nearest
from metarl.imports import process_kept
from metarl.problems import in_words, note_users_module
from metarl.run.sources import Source

_FAMILIES: dict[str, dict[str, Family]] = {}
_ORIGINS: dict[str, Origin] = {}
"""Full name -> where it was defined; those of this package are not here."""
_MODIFIED: dict[str, Family] = {}
"""By full name: one name is one object, also of those that are made when they are first asked for."""


@checked
def register(family: Family, *, replace: bool = False) -> None:
    """Add a family, here and to Gymnasium; the first variant registered under a name is its default.

    Args:
        family: the family.
        replace: take the place of one of this name and variant, as where a notebook's cell is run again.

    Raises:
        UserError: the name and variant are taken, or are those of a family of metarl's own.
    """
    check_definition(family)
    origin = present()
    _add(family, None if origin.source == __name__ else origin, replace=replace)


def _add(family: Family, origin: Origin | None, *, replace: bool) -> None:
    """Add a family of `origin`, None for one of metarl's own; see `register`."""
    name = family.full_name
    if family.name in LATER and origin is not None:
        raise UserError(f"got a family called {family.name}, as {metaworld.SOURCE} has one: give it another name")
    variants = _FAMILIES.setdefault(family.name, {})
    if family.variant in variants and not (replace and name in _ORIGINS):
        hint = ", or replace=True" if name in _ORIGINS else ""
        raise UserError(f"got a second family {name}: each name@variant registers once, pick another{hint}")
    is_new = not variants and family.name not in LATER
    variants[family.variant] = family
    if origin is not None:
        _ORIGINS[name] = origin
        for modified in [other for other in _MODIFIED if split_name(other)[0] == name]:
            del _MODIFIED[modified]
    if is_new:
        _add_id(family.name)


def _add_id(name: str) -> None:
    """Tell Gymnasium of the family of a name."""
    # No max_episode_steps: the environments truncate by themselves, at their own or their variant's horizon.
    gymnasium.register(
        gymnasium_id(name),
        entry_point="metarl.envs.gym.single:FamilyEnv",
        vector_entry_point="metarl.envs.gym.vector:FamilyVectorEnv",
        kwargs={"family": name},
    )


@checked
def gymnasium_id(name: str) -> str:
    """Return the Gymnasium id of a family: `metarl/HalfCheetahVel-v0` for `half-cheetah-vel`."""
    return f"metarl/{''.join(part.capitalize() for part in name.split('-'))}-v0"


LATER = metaworld.NAMES
"""Families of many variants, which are made when they are first asked for and run in an interpreter of their own."""

for _name in LATER:
    _add_id(_name)
for _file in FILES:
    for _family in importlib.import_module(f"metarl.envs.families.{_file}").FAMILIES:
        register(_family)


def is_family(name: str) -> bool:
    """Tell whether a name, with or without source, variant and modifiers, is that of a family.

    Raises:
        UserError: its source cannot be imported.
    """
    return split_name(_load(name))[0].partition("@")[0] in (*_FAMILIES, *LATER)


def is_registered(name: str) -> bool:
    """Tell whether the family and variant of a name without source are here; modifiers do not matter."""
    base, _, variant = split_name(name)[0].partition("@")
    if base in LATER:
        return True
    return base in _FAMILIES and (not variant or variant in _FAMILIES[base])


def families() -> dict[str, list[Family]]:
    """Return every family name with its variants, the default first; without those that are made `LATER`."""
    return {name: list(variants.values()) for name, variants in _FAMILIES.items()}


@checked
def get(name: str, *, present: bool = True) -> Family:
    """Return a family by `name` or `name@variant`, either followed by modifiers (`+mass+switch=50..150`).

    A family that is registered elsewhere has its source before it: `package.module:name` or `path/file.py:name`. The
    family of a robot file is called by that, `path/robot.yaml` (see robots/).

    Args:
        name: of the family.
        present: its source may import from the present folder.

    Raises:
        UserError: it does not exist, lists what does; or it does not allow a modifier.
    """
    source = name.rpartition(":")[0]
    name = _load(name, present)
    plain, modifiers = split_name(name)
    if source and not is_registered(plain.partition("@")[0]):
        raise UserError(_not_in(source, plain.partition("@")[0]))
    if modifiers:
        steps, modifiers = take_horizon(modifiers, name)
        family = get(plain) if steps is None else with_horizon(get(plain), steps)
        family = modify(family, *(parse(modifier) for modifier in modifiers)) if modifiers else family
        return _MODIFIED.setdefault(family.full_name, family) if "+" in family.full_name else family
    base, _, variant = name.partition("@")
    if base in LATER:
        return metaworld.make(base, variant)
    if base not in _FAMILIES:
        raise UserError(f"unknown family '{base}'.{nearest(base, [*_FAMILIES, *LATER])}")
    variants = _FAMILIES[base]
    if not variant:
        return next(iter(variants.values()))
    if variant not in variants:
        raise UserError(f"{base} has no variant '{variant}'.{nearest(variant, variants)}")
    return variants[variant]


def origin_of(family: Family) -> Origin | None:
    """Return where a registered family was defined; None for one of metarl's own."""
    return _ORIGINS.get(split_name(family.full_name)[0])


def address(family: Family) -> str:
    """Return the name that finds a family in another process too: with what registers it, where that is known."""
    origin = origin_of(family)
    return f"{origin.source}:{family.full_name}" if origin is not None and origin.source else family.full_name


def sources_of(family: Family) -> tuple[Source, ...]:
    """Return what a run that is trained on a registered family says of the files that it executes."""
    return files_of(family, origin_of(family))


def _load(name: str, present: bool = True) -> str:
    """Import the source of `source:name`, or read the robot file, where there is one, and return the name alone."""
    file, rest = split_robot_file(name)
    if file:
        return _name_in(_robot(Path(file)), file, rest)
    source, _, plain = name.rpartition(":")
    if not source:
        return name
    # As for a Python script and for `python -m`: the present folder is where one's own modules are.
    if present and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    known = _full_names()
    try:
        with process_kept():
            module = import_source(source)
    except KeyboardInterrupt:
        raise
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except Unfit as error:
        raise UserError(str(error)) from error
    # Somebody's module may raise anything.
    except BaseException as error:
        raise UserError(f"importing {source} failed, {in_words(error)}. Mend it, or its path") from error
    note_users_module(module)
    _ORIGINS.update(dict.fromkeys(_full_names() - known, Origin(source=source_of(module))))
    return plain


def _robot(file: Path) -> RobotFamily:
    """Return the family of a robot file, which is registered then; the one that is there already if nothing changed."""
    read = read_file(file)
    name = f"{read.name}@{read.content['variant']}"
    origin = _ORIGINS.get(name)
    if origin is not None and origin.robot is not None and origin.robot.robot.is_of(read):
        return origin.robot
    if is_registered(name) and (origin is None or origin.source != str(read.path)):
        whose = "metarl itself" if origin is None else origin.source or origin.program or "this session"
        raise UserError(f"{file.name}: name: {name} is a family of {whose} already. Give another `name` or `variant`.")
    family = robot_family(file)
    _add(family, Origin(source=str(read.path), robot=family), replace=True)
    return family


def _name_in(family: RobotFamily, file: str, rest: str) -> str:
    """Return the name of a robot file's family with what stood behind the file: `+mass`, or `:go1@v1+mass`."""
    if not rest.startswith(":"):
        return f"{family.full_name}{rest}" if not rest.startswith("@") else f"{family.name}{rest}"
    if split_name(rest[1:])[0] not in (family.name, family.full_name):
        raise UserError(f"{file} has the family {family.full_name}, not '{rest[1:]}'. Take that name, or another file.")
    return rest[1:]


def _not_in(source: str, base: str) -> str:
    """Return the error text about a family that a source does not register."""
    itself = source_of(import_source(source))
    own = dict.fromkeys(name.partition("@")[0] for name, origin in _ORIGINS.items() if origin.source == itself)
    return (
        f"{source} registers no family '{base}' when it is imported. Call register in it, and not under "
        f'`if __name__ == "__main__"`, or correct the name.{nearest(base, own) if own else ""}'
    )


_AT_HORIZONS: dict[tuple[int, int], tuple[Family, Family]] = {}
"""Identity of a family that is not registered, and a horizon -> the family, which so stays, and what was made of it."""


def at_horizon(family: Family, horizon: int) -> Family:
    """Return a family with a time limit, whichever its name has now; of one family always the same object.

    Args:
        family: any.
        horizon: steps of an episode.

    Raises:
        UserError: no whole number of steps, or none that the family can have.
    """
    if not _is_registered(family):
        key = (id(family), horizon)
        if key not in _AT_HORIZONS:
            _AT_HORIZONS[key] = (family, with_horizon(family, horizon))
        return _AT_HORIZONS[key][1]
    return resolve(get(without_horizon(family.full_name)), horizon=horizon)


def _is_registered(family: Family) -> bool:
    if isinstance(family, metaworld.MetaWorldFamily):
        return True
    known = _MODIFIED.get(family.full_name) or _FAMILIES.get(family.name, {}).get(family.variant)
    return known is family


def _full_names() -> set[str]:
    return {family.full_name for variants in _FAMILIES.values() for family in variants.values()}


def resolve(family: Family | str, variant: str | None = None, horizon: int | None = None) -> Family:
    """Return a family by its name, and by its variant where the name does not say it.

    Args:
        family: a family, or its name.
        variant: of the name, where that has none.
        horizon: steps of an episode, where they are to be others than the family's.

    Raises:
        UserError: it does not exist, it is no family, two variants or two horizons were given, or no whole number of
            steps.
    """
    if not isinstance(family, Family | str):
        raise UserError(f"got {family!r} where a family is needed: give its name, such as 'ant-dir', or a Family")
    if horizon is not None:
        chosen = resolve(family, variant)
        if HORIZON in chosen.full_name and chosen.horizon != horizon:
            raise UserError(f"got horizon={horizon} for {chosen.full_name}, which names its own: leave one of them out")
        # By its name: one name is one object, where the family is a registered one.
        longer = with_horizon(chosen, horizon)
        return _MODIFIED.setdefault(longer.full_name, longer) if _is_registered(chosen) else longer
    if isinstance(family, str) and variant is None:
        return get(family)
    if isinstance(family, str) and "@" not in family:
        plain, modifiers = split_name(family)
        return get("+".join((f"{plain}@{variant}", *modifiers)))
    if isinstance(family, Family) and variant is None:
        return family
    name = family if isinstance(family, str) else family.full_name
    raise UserError(f"got variant='{variant}' for {name}, which names its variant: leave one of them out")
