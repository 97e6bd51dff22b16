"""The settings that runs have: of any run, and of a run of an agent; and runs told apart by them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_args

from metarl.config import MOST_STEPS, check, check_numbers, to_plain
from metarl.errors import UserError, nearest
from metarl.run.sources import Source

Thing = TypeVar("Thing")

DEFAULT_FAMILY = "half-cheetah-vel"
"""What is trained on where no family is named."""
KINDS = {"agent": ("RL", "metarl"), "learner": ("few-shot", "metarl fewshot")}
"""Field in which a run names what it trains -> what such a run is called, and the command for it."""

Device = str
"""`auto`, `cpu`, `cuda` or `cuda:N` (see `metarl.devices.resolve_device`)."""
Engine = Literal["auto", "cpu", "gpu"]
Checkpoint = Literal["last", "best", "previous"]


@dataclass(frozen=True, kw_only=True)
class RunSettings(ABC):
    """Settings that every run has. A subclass has one of the fields of KINDS."""

    seed: int = 0
    """Where all randomness comes from."""
    device: Device = "cpu"
    """Where the networks live: cpu, cuda, a GPU by its number (cuda:1), or auto: cuda where there is one."""
    deterministic: bool = False
    """Give the same numbers in every run, bit for bit. A CPU does so anyway; a GPU is slower then."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    checkpoint_every: int = 10
    """Iterations from one checkpoint to the next."""
    sources: tuple[Source, ...] = ()
    """Files and modules of the user's that it executes."""

    def __post_init__(self) -> None:
        # Not at the top: it imports torch, and the commands read their options before that.
        from metarl.devices import check_device

        check_device(self.device)
        check_numbers(self)
        if self.seed < 0 or self.threads < 0 or self.checkpoint_every < 1:
            raise UserError(
                f"Got seed {self.seed}, threads {self.threads}, checkpoint_every {self.checkpoint_every}; "
                "allowed are seed and threads from 0, checkpoint_every from 1. Correct the option."
            )

    passing: ClassVar[tuple[str, ...]] = ("device", "deterministic", "threads", "checkpoint_every", "sources")
    """Fields that may change from one start of a run to the next."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What the run is called while it is shown."""

    @property
    def command(self) -> str:
        """The command for runs of this kind."""
        return next(command for name, (_, command) in KINDS.items() if hasattr(self, name))


@dataclass(frozen=True, kw_only=True)
class RunConfig(RunSettings):
    """What a run of an agent is, apart from the agent's own settings."""

    family: str = DEFAULT_FAMILY
    """Task family, with its variant after an @ where it is not the default one. The family of a user's file has the
    name of that before a colon, for people to read; `sources` says where it is."""
    agent: str
    """Name of the agent."""
    engine: Engine = "auto"
    """What steps the worlds: cpu, gpu (mujoco_warp, on the device), or auto: gpu where the device is one."""
    validation: int = 0
    """Validation tasks at every checkpoint, of the training distribution; 0: none."""
    patience: int = 0
    """Checkpoints in a row that do not raise the validation, after which the run ends (plateau.py); 0: none does."""

    passing: ClassVar[tuple[str, ...]] = (*RunSettings.passing, "engine", "patience")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine not in get_args(Engine):
            raise UserError(f"Unknown engine '{self.engine}'.{nearest(self.engine, get_args(Engine))}")
        most = {"validation": MOST_STEPS, "patience": MOST_STEPS}
        check(self, at_least={"validation": 0, "patience": 0}, at_most=most)
        if self.patience and self.validation < 2:
            raise UserError(
                f"Got --patience {self.patience} with --validation {self.validation}: it waits for a rise of the "
                "validation, over 2 tasks or more. Start a run with --validation 40, or leave --patience out."
            )

    @property
    def title(self) -> str:
        """What the run is called while it is shown."""
        return f"{self.agent} {self.family}"


def lasting_settings(run: RunSettings) -> dict[str, Any]:
    """Return the settings that a run keeps for life, as plain data."""
    return {name: value for name, value in to_plain(run).items() if name not in run.passing}


def by_settings(things: Sequence[tuple[str, dict[str, Any], Thing]]) -> list[tuple[str, list[Thing]]]:
    """Group things by name and settings, in the order of the first of every group.

    Args:
        things: name, settings as plain data, and the thing itself.

    Returns:
        Labels with groups: the name, with the settings in which it differs from the others of that name.
    """
    groups: list[tuple[str, dict[str, Any], list[Thing]]] = []
    for name, settings, thing in things:
        alike = [group for known, of, group in groups if (known, of) == (name, settings)]
        if alike:
            alike[0].append(thing)
        else:
            groups.append((name, settings, [thing]))
    labels = []
    for name, settings, _ in groups:
        others = [of for known, of, _ in groups if known == name]
        differ = [key for key in settings if any(of.get(key) != settings[key] for of in others)]
        labels.append(" ".join([name, *(f"{key.replace('_', '-')}={settings[key]}" for key in differ)]))
    return [(label, group) for label, (_, _, group) in zip(labels, groups, strict=True)]
