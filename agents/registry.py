"""All agents by name: what each is made of. A file of this folder is imported when one of its agents is asked for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from metarl.arguments import checked
from metarl.errors import UserError, nearest

if TYPE_CHECKING:
    import torch

    from metarl.ranks import Ranks
    from metarl.seeding import Streams
    from metarl.types import EnvSpec, MetaAgent

NEEDED = ("iterations", "episodes", "worlds")
"""What a config must have: meta-iterations of a training, episodes of a task at a time, parallel worlds."""
METHODS = ("train_iteration", "start", "state_dict", "load_state_dict")
"""What an agent does."""


class Entry(NamedTuple):
    """One agent of the table."""

    config: str | type[Any]
    """Its config class; FILE:NAME for one in this folder."""
    make: str | Callable[..., Any]
    """(config, spec, streams, device, ranks) -> a fresh agent; FILE:NAME for one in this folder."""
    summary: str
    """What it is, in some words."""


AGENTS: dict[str, Entry] = {
    "maml-trpo": Entry(
        config="maml_trpo:MamlTrpoConfig",
        make="maml_trpo:MamlTrpo",
        summary="meta-learns an initial policy that adapts by policy-gradient steps",
    ),
    "promp": Entry(
        config="promp:PrompConfig",
        make="promp:Promp",
        summary="the same by a proximal outer step, clipped and with a penalty on the KL of what is adapted",
    ),
    "rl2": Entry(
        config="rl2:Rl2Config",
        make="rl2:Rl2",
        summary="learns to adapt in its memory, over trials of several episodes",
    ),
    "pearl": Entry(
        config="pearl:PearlConfig",
        make="pearl:Pearl",
        summary="an off-policy actor-critic that is told a belief about the task",
    ),
    "varibad": Entry(
        config="varibad:VaribadConfig",
        make="varibad:Varibad",
        summary="learns a belief about the task over such trials, and a policy that acts on it",
    ),
    "dpt": Entry(
        config="dpt:DptConfig",
        make="dpt:Dpt",
        summary="a transformer that is taught to name the best action, where a family says it",
    ),
    "rma": Entry(
        config="teacher_student:RmaConfig",
        make="teacher_student:rma",
        summary="a student that finds out, in a window of steps, what its teacher was told of the task",
    ),
    "teacher": Entry(
        config="teacher_student:TeacherConfig",
        make="teacher_student:teacher",
        summary="one policy that is told the task through an encoder, by PPO: an oracle",
    ),
    "ppo": Entry(
        config="teacher_student:PpoConfig",
        make="teacher_student:ppo",
        summary="the same networks, told nothing: plain domain randomisation",
    ),
    "multitask": Entry(
        config="multitask:MultitaskConfig",
        make="multitask:multitask",
        summary="one policy for all tasks, fine-tuned at test",
    ),
    "oracle": Entry(
        config="multitask:MultitaskConfig",
        make="multitask:oracle",
        summary="one policy that is told the task",
    ),
    "random": Entry(
        config="multitask:MultitaskConfig",
        make="multitask:random",
        summary="an untrained policy, fine-tuned at test",
    ),
}
"""Name -> what it is made of."""


@checked
def register(name: str, config_class: type[Any], make: Callable[..., Any], summary: str) -> None:
    """Add an agent of your own: from here on it is known by its name, in this process.

    Args:
        name: letters, digits and hyphens; it stands in commands and in names of run folders.
        config_class: a dataclass of plain fields with defaults. It has `iterations`, `episodes` (of a task at a time)
            and `worlds` (parallel worlds of a training iteration), as fields or properties.
        make: (config, spec, streams, device, ranks) -> a fresh agent (`metarl.types.MetaAgent`); the agent's class
            does where its constructor takes these.
        summary: what it is, in some words.

    Raises:
        UserError: the name is taken or is none, or something is not as it must be; says what.
    """
    if name in AGENTS:
        raise UserError(f"Got a second agent '{name}': a name registers once. Pick another one.")
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name) is None:
        raise UserError(f"Got '{name}' for the name of an agent. Begin with a letter; then letters, digits, hyphens.")
    if not summary.strip():
        raise UserError(f"Got no summary of {name}. Say in some words what it is: `metarl list` shows it.")
    _check_config(name, config_class)
    _check_make(name, make)
    AGENTS[name] = Entry(config=config_class, make=make, summary=summary)


@checked
def config_class(name: str) -> type[Any]:
    """Return an agent's config class.

    Raises:
        UserError: unknown agent; lists what exists.
    """
    return _found(_entry(name).config)


def make(
    name: str, config: Any, spec: EnvSpec, streams: Streams, device: torch.device, ranks: Ranks | None = None
) -> MetaAgent:
    """Return a freshly initialised agent.

    Args:
        name: of the agent.
        config: an object of its config class.
        spec: the family's sizes.
        streams: `init` draws the initial parameters.
        device: where the networks live.
        ranks: the processes that train it together, each on its share of the tasks; None: it is alone.

    Raises:
        UserError: unknown agent, a config of another one, tasks that the ranks cannot share out, a network that does
            not fit into memory, or what was registered under the name makes no agent.
    """
    from metarl.memory import FLOAT, require
    from metarl.ranks import ALONE
    from metarl.types import MetaAgent

    wanted = config_class(name)
    if not isinstance(config, wanted):
        raise UserError(f"Got a {type(config).__name__} for {name}. Give a {wanted.__name__}.")
    if hasattr(config, "network_weights"):
        require({"the network's size (hidden, width, layers)": FLOAT * 2 * config.network_weights(spec)}, device)
    agent = _found(AGENTS[name].make)(config, spec, streams, device, ALONE if ranks is None else ranks)
    if not isinstance(agent, MetaAgent):
        lacking = [part for part in ("name", "config", "trial", "pools", *METHODS) if not hasattr(agent, part)]
        raise UserError(
            f"{name} makes a {type(agent).__name__} without {', '.join(lacking)}. An agent has all that "
            "metarl.types.MetaAgent lists."
        )
    return agent


def _entry(name: str) -> Entry:
    if name not in AGENTS:
        raise UserError(f"Unknown agent '{name}'.{nearest(name, AGENTS)}")
    return AGENTS[name]


def _found(what: Any) -> Any:
    """Return what FILE:NAME names in this folder; all else as it is."""
    if not isinstance(what, str):
        return what
    file, _, name = what.partition(":")
    return getattr(import_module(f"metarl.agents.{file}"), name)


def _check_config(name: str, kind: Any) -> None:
    """Refuse a config class that the command line or a run folder could not handle."""
    from metarl.config import from_plain, to_plain

    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise UserError(f"Got {kind!r} for the config class of {name}. Give a class with @dataclass above it.")
    try:
        config = kind()
    except TypeError as error:
        raise UserError(f"{kind.__name__}() fails, {error}. Give every field of {name}'s config a default.") from error
    lacking = [field for field in NEEDED if not hasattr(config, field)]
    if lacking:
        raise UserError(
            f"{kind.__name__} lacks {', '.join(lacking)}. An agent's config has iterations, episodes (of a task at "
            "a time) and worlds (in parallel), as fields or properties."
        )
    try:
        restored = from_plain(kind, to_plain(config))
    except (TypeError, NameError) as error:
        raise UserError(f"{kind.__name__} does not fit in a config.yaml. {error}") from error
    if restored != config:
        raise UserError(
            f"{kind.__name__} does not come back from a config.yaml as it was. Let all of it be fields that its "
            "constructor takes."
        )


def _check_make(name: str, build: Any) -> None:
    """Refuse what cannot be called as an agent is made, and a class that lacks what an agent does."""
    try:
        inspect.signature(build).bind("config", "spec", "streams", "device", "ranks")
    except TypeError as error:
        raise UserError(
            f"{name} cannot be made, {error}. It is called with (config, spec, streams, device, ranks)."
        ) from error
    if isinstance(build, type):
        lacking = [method for method in METHODS if not callable(getattr(build, method, None))]
        if lacking:
            raise UserError(
                f"{build.__name__} lacks {', '.join(lacking)}. An agent has all that metarl.types.MetaAgent lists."
            )
