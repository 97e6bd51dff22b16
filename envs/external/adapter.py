"""Bring your own: a Gymnasium environment whose task can be set, as a family.

    from metarl.envs import GymnasiumFamily, register

    register(
        GymnasiumFamily(
            name="reach",
            make="reach_env:Reach",                     # or a Gymnasium id
            parameters=(Parameter(name="goal", ...),),  # what differs between tasks
            horizon=50,
        )
    )

The environments run in worker processes (`pool.py`, `child.py`), as many as there are threads asked for, and in
another interpreter where `python` names one: it needs numpy and gymnasium only. Tasks, time limit, actions and the
end of episodes are as in every family, since `Worlds` sees to them here too.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.external import child
from metarl.envs.external.pool import Job, Pool
from metarl.envs.family import LARGEST_VALID, Family, Observable, State, Terms, all_valid
from metarl.errors import UserError
from metarl.launches import Launches
from metarl.space.fixed import FixedTasks, ListedTasks
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import Picture, Record, Tasks

SEEDS = 2**31
"""Each episode's `reset(seed=...)` is below."""

Spaces = tuple[list[str], dict[str, Any], list[dict[str, Any]]]
"""Observation names, actions and pictures, as a worker tells them."""


@dataclass(frozen=True)
class Carried:
    """A callable that no module has which workers could import: they get it by value."""

    label: str
    """What people know it by."""
    content: bytes = field(repr=False)
    """By cloudpickle."""

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True, kw_only=True)
class GymnasiumFamily(Family):
    """A Gymnasium environment with tasks.

    Its spaces are read from the environment, in a worker process, when they are first asked for. Observations of the
    spaces Box, Discrete, MultiBinary, MultiDiscrete, and Dict or Tuple of those come flattened; agents are told which
    of their numbers are the pixels of pictures. Actions are numbers, a Box of floats with finite bounds; or choices,
    Discrete, MultiBinary, MultiDiscrete, a small Box of integers; or a Dict or Tuple of one of the two kinds.

    Raises:
        UserError: a field that does not fit; and, when the environment is first made, whatever is wrong with it.
    """

    name: str
    """Family name, as in `--family`."""
    make: str | Callable[..., Any] | Carried
    """How an environment is made: a Gymnasium id, or `module:callable`, `path/file.py:callable`, or a callable. One of
    a module is imported by workers, so it should stand in one that does not import metarl; what no module has (of a
    notebook, of the program that is run, a lambda) they get by value, as it is when the family is made."""
    parameters: tuple[Parameter, ...]
    """What differs between tasks."""
    horizon: int
    """T: steps after which an episode is truncated. The environment may truncate earlier."""
    variant: str = "v1"
    """Whose definition it is, where there are several."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `make`: plain data."""
    set_task: str | Callable[..., Any] | Carried = "options"
    """How the environment gets its task, a record such as {"goal": [0.1, 0.2]}, at every reset: `options` by
    `reset(options={"task": record})`; `attributes` as its attributes of the parameters' names; the name of one of its
    methods, called with the record; or `module:function` or a callable, called with the environment and the record."""
    success_key: str | None = None
    """Key of a step's info that says whether the goal is met."""
    vector: bool = False
    """`make` gives a vector environment (`make(num_envs=...)`, `gymnasium.make_vec` for an id), one a worker. It gets
    all its tasks at once: `options={"tasks": [...]}`, or a list of records where `set_task` is called."""
    python: str | None = None
    """Another interpreter to run the environments, such as `~/metaworld/bin/python`; this one if None."""
    folder: str = field(default_factory=lambda: str(_folder()))
    """What `make` and `set_task` are imported from first; that of the file that defines the family if not given."""
    timeout: float = 60.0
    """Longest time that one call of the environment may take, s."""
    fixed: FixedTasks | ListedTasks | None = None
    """Finite train and test sets of tasks, drawn once or given one by one, in place of fresh draws."""
    summary: str = ""
    """One line for `metarl list`."""
    source: str = ""
    """Where the definition comes from."""
    step_seconds: float = 1.0
    """Simulated seconds of one step."""
    action_unit: str = "the environment's own unit"
    """Unit of the actions."""
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        fill = {
            "make": reference(self.make, "make", self.python),
            "set_task": reference(self.set_task, "set_task", self.python),
            "space": ParameterSpace(self.full_name, self.parameters, self.fixed),
        }
        fill["summary"] = self.summary or f"{fill['make']} with tasks"
        fill["source"] = self.source or str(fill["make"])
        for name, value in fill.items():
            object.__setattr__(self, name, value)
        if self.horizon < 1 or not 0.0 < self.timeout < 1e6:
            raise UserError(f"{self.full_name}: got horizon {self.horizon} and timeout {self.timeout}: give above 0")
        if self.vector and self.set_task == "attributes":
            raise UserError(f"{self.full_name}: got set_task='attributes' for a vector environment: name a function")
        try:
            json.dumps(dict(self.kwargs))
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.full_name}: got kwargs={self.kwargs}: give plain data only, {error}") from error

    @property
    def job(self) -> Job:
        """What worker processes are to run."""
        given = {"make": self.make, "set_task": self.set_task}
        hello = {
            **{name: str(value) for name, value in given.items()},
            "carried": {
                name: base64.b64encode(value.content).decode()
                for name, value in given.items()
                if isinstance(value, Carried)
            },
            "kwargs": dict(self.kwargs),
            "vector": self.vector,
            "success_key": self.success_key,
            "pictures": False,
        }
        return Job(family=self.full_name, hello=hello, folder=self.folder, python=self.python, timeout=self.timeout)

    @cached_property
    def _spaces(self) -> Spaces:
        """Observation names, actions and pictures, as one environment tells them."""
        pool = Pool(self.job, 1, 1)
        pool.close()
        return pool.observation, pool.action, pool.pictures

    @property
    def observables(self) -> tuple[Observable, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The observation table: the names that the space gives."""
        return tuple(Observable(name, "-", "-") for name in self._spaces[0])

    @property
    def pictures(self) -> tuple[Picture, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Which numbers of an observation are pixels."""
        return tuple(
            Picture(
                first=found["first"],
                shape=tuple(found["shape"]),
                channels=tuple(found["channels"]),
                largest=found["largest"],
            )
            for found in self._spaces[2]
        )

    @property
    def choices(self) -> tuple[int, ...]:
        """Alternatives of every choice that an action makes; empty where it is numbers."""
        return tuple(self._spaces[1].get("choices", ()))

    @property
    def discrete(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the actions are choices."""
        return bool(self.choices)

    @property
    def action_low(self) -> tuple[float, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Lower bounds of the actions."""
        return (0.0,) * sum(self.choices) if self.discrete else tuple(self._spaces[1]["low"])

    @property
    def action_high(self) -> tuple[float, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Upper bounds of the actions."""
        return (1.0,) * sum(self.choices) if self.discrete else tuple(self._spaces[1]["high"])

    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the seed of every episode."""
        return {"seed": torch.randint(SEEDS, (len(tasks),), generator=generator).double()}

    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return what the environments returned."""
        return state["observation"]

    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return the environment's reward."""
        return {"environment": state["reward"].clone()}

    def terminated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return which environments say that they are in a terminal state."""
        return state["terminated"] != 0

    def truncated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"]:
        """Return which environments end an episode before the horizon."""
        return state["truncated"] != 0

    def success(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"] | None:
        """Return what the info's `success_key` says."""
        return None if self.success_key is None else state["success"] != 0


class WorkerPhysics:
    """Physics of a `GymnasiumFamily`: worlds in worker processes.

    Args:
        family: the family.
        num_worlds: B.
        processes: worker processes; 0 takes one a core, or one where the family is a vector environment.
        pictures: whether its worlds will be drawn: environments are then made with `render_mode="rgb_array"`.
    """

    device = torch.device("cpu")
    lockstep = False
    launches: Launches | None = None

    def __init__(self, family: GymnasiumFamily, num_worlds: int, processes: int = 0, *, pictures: bool = False) -> None:
        self.family = family
        self.pictures = pictures
        job = family.job
        job = replace(job, hello=job.hello | {"pictures": pictures})
        self.pool = Pool(job, num_worlds, processes or (1 if family.vector else _cores()))
        # Known from here on: no environment has to be made to ask it.
        vars(family)["_spaces"] = (self.pool.observation, self.pool.action, self.pool.pictures)
        # Live views of the shared arrays.
        self.state = {name: torch.from_numpy(array) for name, array in self.pool.arrays.items()}
        self._records: list[Record] = []

    def apply(self, tasks: Tasks, worlds: Tensor | None) -> None:
        """Keep the tasks for the next reset."""
        self._records = tasks.records()

    def write(self, state: Mapping[str, Tensor], worlds: Tensor | None) -> None:
        """Begin an episode with its seed and its task in the worlds."""
        seeds = state["seed"].long()
        chosen = torch.arange(len(self._records)) if worlds is None else worlds
        order = chosen.argsort()
        rows = chosen[order].tolist()
        self.pool.reset(rows, seeds[order].tolist(), [self._records[row] for row in rows])
        begun = self.state["observation"][chosen]
        if not all_valid(begun):
            world = int(chosen[(begun.abs() < LARGEST_VALID).logical_not().any(1)][0])
            raise UserError(
                f"{self.family.full_name}: world {world} began with the observation "
                f"{self.state['observation'][world].tolist()}, for the task {self._records[world]}: mend its reset"
            )

    def advance(self, action: Float[Tensor, "B A"], worlds: Tensor | None) -> Bool[Tensor, " B"] | None:
        """Take one step in the chosen worlds; those with invalid numbers are reported, the others run on."""
        arrays = self.pool.arrays
        if self.family.discrete:
            parts = action.split(list(self.family.choices), 1)
            action = torch.stack([part.argmax(1) for part in parts], 1).double()
        arrays["action"][:] = action.numpy()
        arrays["active"][:] = 1
        if worlds is not None:
            arrays["active"][:] = np.isin(np.arange(len(action)), worlds.numpy())
        self.pool.step()
        observation, reward = self.state["observation"], self.state["reward"]
        if all_valid(observation) and all_valid(reward):
            return None
        # A reward that is no number is no failed simulation, as long as the observation is right: it is a mistake.
        valid = (reward.abs() < LARGEST_VALID) | ~reward.isfinite()
        return ~((observation.abs() < LARGEST_VALID).all(1) & valid)

    def draw(self, world: int) -> np.ndarray:
        """Return what an environment's `render` draws, [height, width, 3] bytes.

        Raises:
            UserError: the worlds were not made for it, or nothing is drawn here.
        """
        if not self.pictures:
            raise UserError(f"{self.family.full_name}: these worlds were made without pictures: give pictures=True")
        return self.pool.draw(world)

    def push(self, forces: Float[Tensor, "B N 6"]) -> None:
        """Refuse: there are no bodies."""
        raise UserError(
            f"{self.family.full_name}: disturb returned forces on bodies, which only families on a MuJoCo model have: "
            "return None"
        )

    def get_state(self) -> dict[str, Any]:
        """Refuse: what the environments are like inside their processes is not known here."""
        raise UserError(
            f"{self.family.full_name}: got a request to copy environments that run in worker processes: copy one that "
            f"you make yourself ({self.family.make})"
        )

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Refuse as `get_state` does."""
        self.get_state()

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse to be copied or pickled."""
        return type(self), (), self.get_state()


def _cores() -> int:
    # Imported where it is used: it brings TensorBoard along.
    from metarl.devices import resolve_threads

    return resolve_threads(0)


def _folder() -> Path:
    """Return the folder of the file that is being imported as a source of families, else the present one."""
    return child.IMPORTING[-1] if child.IMPORTING else Path.cwd()


def reference(given: Any, field_name: str, python: str | None = None) -> str | Carried:
    """Return what workers find a callable by: `module:name` or `file.py:name`, else the callable by value.

    Args:
        given: a callable, or a text that names one.
        field_name: for error texts.
        python: the other interpreter that is to run it, if any.

    Raises:
        UserError: it is no callable, or one that can neither be imported nor sent.
    """
    if isinstance(given, Carried):
        return given
    if isinstance(given, str):
        # A file is found from the one that names it, else from here; a worker or a later run may stand elsewhere.
        source, colon, name = given.rpartition(":")
        return f"{(_folder() / Path(source).expanduser()).resolve()}{colon}{name}" if source.endswith(".py") else given
    got = f"got {field_name}={given!r}"
    if not callable(given):
        raise UserError(f"{got}: give its class or a function, or a text that names one such as 'file.py:name'")
    module = sys.modules.get(getattr(given, "__module__", None) or "")
    name = str(getattr(given, "__qualname__", type(given).__name__))
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    importable = module is not None and found is given
    # A notebook has no file. A program's would be run by every worker: it goes by value, if its interpreter is this.
    if (
        module is not None
        and importable
        and (module.__name__ != "__main__" or (python and hasattr(module, "__file__")))
    ):
        return f"{source_of(module)}:{name}"
    cure = f"write it to a file of its own, say mine.py, and give {field_name}='mine.py:NAME'"
    if python is not None:
        raise UserError(f"{got}, which no file has that the interpreter {python} could import: {cure}")
    try:
        return Carried(f"{name} of this session", cloudpickle.dumps(given))
    # What refuses to be pickled may raise anything.
    except Exception as error:
        raise UserError(
            f"{got}, which cannot be sent to worker processes ({type(error).__name__}: {error}). Make what it holds "
            f"inside the call, or {cure}"
        ) from error


def source_of(module: ModuleType) -> str:
    """Return what another process imports a module by: its name within a package, else its file."""
    file = getattr(module, "__file__", None)
    # A script that is run has no name that others could import.
    script = module.__spec__ is None
    in_package = "." in module.__name__ or hasattr(module, "__path__")
    return str(Path(file).resolve()) if file and (script or not in_package) else module.__name__
