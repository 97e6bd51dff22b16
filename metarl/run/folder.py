"""The run folder: what is in it, who may write to it, and in which order.

    config.yaml             format, version, iterations, the run's settings (`run`) and those of what is trained
                            (`config`), signature of the list of files that it executes (trust.py)
    checkpoints/            last.pt, previous.pt, best.pt (best mean score of a checkpoint interval)
    progress.csv            one row an iteration, or a few of them; columns as in the glossary
    events.out.tfevents.*   the same for TensorBoard
    evaluation/             results of `metarl evaluate`; training neither writes nor reads them

`RunFolder` reads all of it and writes nothing. A training writes through what `RunFolder.open` gives, in this order:

    1. the folder is made, or refused where it holds anything, and locked until the training ends
    2. a resumed run is brought to its checkpoint
    3. config.yaml is written, progress.csv and events are opened and cut back to that checkpoint
    4. rows; before every checkpoint those that it covers are brought to the disk

Killed at any moment, the run goes on from its last checkpoint as if nothing had happened: whatever changes is in the
checkpoint, and what was logged after it is dropped and logged again.

Of several ranks (metarl/ranks.py) the first one writes all of this; the others read it when a run is resumed. No
randomness belongs to a rank, so that any number of them goes on with a run that can share out its tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from metarl.config import dump, from_plain, to_plain
from metarl.errors import UserError, nearest
from metarl.files import Folder, read_regular
from metarl.plain import parse_yaml, shown
from metarl.ranks import ALONE, Ranks
from metarl.run.beside import with_beside
from metarl.run.checkpoint import CheckpointFolder, load, most_bytes
from metarl.run.fits import check_fits
from metarl.run.formats import FORMAT, Stored, conversions_from
from metarl.run.settings import KINDS, RunSettings, lasting_settings
from metarl.run.sources import executed, from_folder
from metarl.run.standing import Standing
from metarl.run.state import check_finite, infinite, size_of
from metarl.run.tracking import Tracker, read_progress
from metarl.run.trust import is_signed, sign
from metarl.seals import AT_MOST
from metarl.seeding import Streams
from metarl.system import LOCK, locked
from metarl.types import Metrics
from metarl.version import __version__

LARGEST = 1 << 16
"""Bytes that config.yaml may have."""
MOST_ROOM = 1 << 31
"""What the buffers of an engine can have room for."""
CHECKPOINTS = ("last", "best", "previous")
"""Names of the checkpoints of a run."""

Run = TypeVar("Run", bound=RunSettings)


@runtime_checkable
class Trainable(Protocol):
    """What is trained: an agent, or a few-shot learner."""

    config: Any

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training has changed (tensors and plain data)."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()` exactly; raise ValueError where it does not fit."""
        ...


class RunFolder:
    """The folder of one training.

    Args:
        path: where it is, or is to be.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    # -- reading ------------------------------------------------------------------------------------------------------

    def settings(self, kind: type[Run]) -> tuple[Run, dict[str, Any]]:
        """Return the run's settings, and as plain data those of what it trained.

        Args:
            kind: class of the settings.

        Raises:
            UserError: if there is no run, its config.yaml is not valid, or it is of another kind or a later format.
        """
        stored = self._read_config()
        wanted = {setting.name for setting in fields(kind)}
        for name, (words, command) in KINDS.items():
            if name in stored["run"] and name not in wanted:
                raise UserError(
                    f"{self} is a run of another kind, {words}: use {command} evaluate, or {command} train --resume."
                )
        return from_plain(kind, stored["run"], "run"), stored["config"]

    def iterations(self) -> int:
        """Return the number of iterations that the run was last asked for; errors as in `settings`."""
        return self._read_config()["iterations"]

    def signed(self) -> bool:
        """Tell whether the list of files that the run executes is by this user on this machine (trust.py)."""
        # As it stands there: what was signed is in the format of its time.
        content = self._parse_config()
        return is_signed(_signed(content["run"]), content.get("signature"))

    def progress(self) -> list[Metrics]:
        """Return the rows of progress.csv as numbers; `step` is one of the columns.

        Raises:
            UserError: the file is damaged.
        """
        return read_progress(self.path)

    def results(self, split: str) -> Folder:
        """Return the folder in which the results of an evaluation are written."""
        return Folder(self.path, ("evaluation", split))

    def checkpoint(self, which: str) -> Path:
        """Return the file of a checkpoint, which may be missing.

        Raises:
            UserError: there is none of this name.
        """
        if which not in CHECKPOINTS:
            raise UserError(f"Unknown checkpoint '{which}'.{nearest(which, CHECKPOINTS)}")
        return self.path / "checkpoints" / f"{which}.pt"

    def has_checkpoint(self) -> bool:
        """Tell whether there is one of any name."""
        return any(self.checkpoint(which).exists() for which in CHECKPOINTS)

    def restore(self, run: RunSettings, which: str, thing: Trainable) -> Standing:
        """Load a checkpoint into an agent or learner that was made from the run's settings.

        Args:
            run: the run's settings.
            which: the checkpoint: `last`, `previous` or `best`.
            thing: changed in place.

        Returns:
            Where the run stood then: the iterations that it was trained for, and more.

        Raises:
            UserError: if there is no such run or checkpoint, or the checkpoint does not fit.
        """
        path = self.checkpoint(which)
        payload = load(path, header_of(run, to_plain(thing.config)), _at_most(thing))
        _fill(thing, payload, path)
        return _standing(payload, path, run)

    def standing(self, which: str, thing: Trainable | None = None) -> Standing:
        """Return where the run stood at a checkpoint; as one that begins where there is no such checkpoint.

        Args:
            which: the checkpoint: `last`, `previous` or `best`.
            thing: what is trained, where it is known: it tells how large a checkpoint may be.

        Raises:
            UserError: it is damaged, or of a later format.
        """
        path = self.checkpoint(which)
        return _standing(load(path, {}, _at_most(thing)), path) if path.exists() else Standing()

    def _read_config(self) -> dict[str, Any]:
        """Return the content of config.yaml in the present format (formats.py)."""
        content = self._parse_config()
        path = self.path / "config.yaml"
        try:
            for convert in conversions_from(content, path):
                convert(Stored(run=content["run"], config=content["config"]))
        # Earlier formats had these settings.
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is no run's of its format: {error}. Correct it.") from error
        return content

    def _parse_config(self) -> dict[str, Any]:
        """Return the content of config.yaml as it stands there, with all its entries."""
        path = self.path / "config.yaml"
        if not path.exists():
            raise UserError(f"There is no run in {self}: it has no config.yaml. Give a folder of `metarl train`.")
        content = parse_yaml(read_regular(path, LARGEST).decode(errors="replace"), path)
        expected = {"version", "iterations", "run", "config"}
        if not isinstance(content, dict) or set(content) - {"format", "signature"} != expected:
            raise UserError(f"{path} is not a run's: it needs the entries {', '.join(sorted(expected))}. Correct it.")
        for part in ("run", "config"):
            if not isinstance(content[part], dict):
                raise UserError(
                    f"{path}: got {part} {shown(content[part])} where a mapping is needed. Correct the entry."
                )
        if type(content["iterations"]) is not int or content["iterations"] < 0:
            raise UserError(
                f"{path}: got iterations {shown(content['iterations'])} where int is needed, from 0. Correct it."
            )
        return content

    # -- training -----------------------------------------------------------------------------------------------------

    @contextmanager
    def open(self, run: RunSettings, thing: Trainable, *, resume: bool, ranks: Ranks = ALONE) -> Iterator[OpenFolder]:
        """Hold the folder for a training, new or resumed, until it ends.

        Args:
            run: the run's settings.
            thing: what is trained.
            resume: whether the folder holds the run already.
            ranks: the processes that train together.

        Raises:
            UserError: the folder is taken or in use, or does not hold the run that is to be resumed.
        """
        header = header_of(run, to_plain(thing.config))
        if resume:
            self.settings(type(run))
        else:
            ranks.once(self._claim)
        with ExitStack() as stack:
            ranks.once(lambda: stack.enter_context(self._lock()))
            folder = OpenFolder(self, run, thing, header, ranks)
            try:
                yield folder
            except BaseException:
                # What has gone wrong already is to be told, not that the same disk is full now too.
                with suppress(OSError):
                    folder.close()
                raise
            folder.close()

    def _claim(self) -> None:
        """Make the folder of a new run, or refuse one that holds anything."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self} is a file. Choose another folder with --out.")
        # A start that was killed before it had written its config.yaml leaves no more than these.
        left = (".partial", LOCK)
        if self.path.is_dir() and any(not entry.name.endswith(left) for entry in self.path.iterdir()):
            raise UserError(
                f"The run folder {self} exists already. Go on with it by --resume {self}, or choose "
                "another one with --out."
            )
        self.path.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the folder; refuse it where another process trains in it. A killed process holds nothing."""
        with locked(self.path, wait=False) as held:
            if not held:
                raise UserError(f"Another process is training in {self}. Wait for its end, or stop it first.")
            yield


class OpenFolder:
    """A run folder that a training holds. Its methods are called by every rank; the first one alone writes.

    Args:
        folder: the folder.
        run: the run's settings.
        thing: what is trained.
        header: what the checkpoints belong to.
        ranks: the processes that train together.
    """

    def __init__(
        self, folder: RunFolder, run: RunSettings, thing: Trainable, header: dict[str, Any], ranks: Ranks
    ) -> None:
        self.folder = folder
        self.run = run
        self.thing = thing
        self._header = header
        self._ranks = ranks
        self._infinite = infinite(thing.state_dict())
        self._checkpoints: CheckpointFolder | None = None
        self._tracker: Tracker | None = None

    def restore(self, which: str, streams: Streams) -> Standing:
        """Bring what is trained, and its streams, to a checkpoint, and return where the run stands.

        Raises:
            UserError: the run has other settings, or there is no such checkpoint.
        """
        stored, config = self.folder.settings(type(self.run))
        if header_of(stored, config) != self._header:
            raise UserError(
                f"Got other settings than {self.folder.path / 'config.yaml'} has. Resume with those, or start a new "
                "run with --out."
            )
        path = self.folder.checkpoint(which)
        if which == "last" and not path.exists() and not path.with_name("previous.pt").exists():
            if any(row["step"] > stored.checkpoint_every for row in self.folder.progress()):
                raise UserError(
                    f"The checkpoints of {self.folder} are gone. Bring them back, or start a new run with --out."
                )
            # Killed before its first checkpoint: the run starts again, and comes to the same results.
            return Standing()
        payload = load(path, self._header, _at_most(self.thing))
        _fill(self.thing, payload, path)
        try:
            streams.load_state_dict(payload.get("streams", {}))
        except ValueError as error:
            raise UserError(f"{path} cannot be used: {error}") from error
        return _standing(payload, path, self.run)

    def begin(self, iterations: int, standing: Standing, score: str, *, resumed: bool) -> None:
        """Write config.yaml, and open what is logged to.

        Args:
            iterations: in the end.
            standing: where the run stands: what was logged after it is dropped.
            score: the figure by which the best checkpoint is chosen.
            resumed: whether it goes on; else it is new.
        """
        if not self._ranks.first:
            return
        if resumed:
            # Damage is told before anything is written.
            self.folder.progress()
        sources = tuple(from_folder(source, self.folder.path) for source in with_beside(self.run.sources))
        settings = to_plain(replace(self.run, sources=sources))
        content = {
            "format": FORMAT,
            "version": __version__,
            "iterations": iterations,
            "run": settings,
            "config": to_plain(self.thing.config),
            "signature": sign(_signed(settings)) if executed(sources) else "",
        }
        folder = Folder(self.folder.path)
        # Before anything is written.
        checkpoints = folder.below("checkpoints").check()
        checkpoints.check_replaceable([f"{which}.pt" for which in CHECKPOINTS])
        for inner in (folder, checkpoints):
            inner.remove_partial()
        folder.write("config.yaml", dump(content).encode())
        self._checkpoints = CheckpointFolder(checkpoints)
        self._tracker = Tracker(folder, resume_step=standing.iteration if resumed else None)
        if not resumed:
            settings.pop("sources")
            self._tracker.describe({"run": settings, "config": content["config"]}, [score])

    def log(self, iteration: int, row: Metrics) -> None:
        """Write a row to progress.csv and TensorBoard."""
        if self._tracker is not None:
            self._tracker.log(iteration, row)

    def save(self, standing: Standing, streams: Streams, *, scored: bool) -> None:
        """Write a checkpoint.

        Args:
            standing: where the run stands.
            streams: its random streams.
            scored: whether a checkpoint interval is full, whose mean score may make it the best.

        Raises:
            NotFiniteError: a number of what is trained is NaN or infinite; nothing is written.
            UserError: the ranks do not have the same parameters.
        """
        whole = {"agent": self.thing.state_dict(), "streams": streams.state_dict()}
        check_finite(whole["agent"], self._infinite)
        # What is logged must never lag behind the checkpoint: a resumed run does not log it again.
        if self._tracker is not None:
            self._tracker.flush()
        self._ranks.assert_replicated(whole)
        if self._checkpoints is not None:
            score = standing.scored() if scored else None
            self._checkpoints.save({**whole, **vars(standing)}, self._header, score)

    def close(self) -> None:
        """Flush and close what is logged to."""
        if self._tracker is not None:
            self._tracker.close()


def header_of(run: RunSettings, config: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint belongs to.

    Args:
        run: the run's settings.
        config: those of what it trains, as plain data.
    """
    # How long a run is to be may change from one start to the next.
    lasting = {name: value for name, value in config.items() if name != "iterations"}
    return {**lasting_settings(run), "config": lasting}


def _signed(run: dict[str, Any]) -> Any:
    """Return what the signature of a run is of: the files that it executes, and the backbone that it calls in one."""
    backbone = run.get("backbone", "")
    return [run.get("sources"), backbone] if ":" in str(backbone) else run.get("sources")


def _standing(payload: dict[str, Any], path: Path, run: RunSettings | None = None) -> Standing:
    """Return where a run stood, from what its checkpoint holds; with its settings more of that is checked."""
    names = {setting.name for setting in fields(Standing)}
    try:
        found = from_plain(Standing, {name: value for name, value in payload.items() if name in names})
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error} Use another checkpoint.") from error
    counts = (found.iteration, found.waited, found.rises, *found.totals.values())
    if not all(count >= 0 for count in counts) or not all(0 <= room < MOST_ROOM for room in found.room.values()):
        raise UserError(
            f"{path} cannot be used: it has iteration {found.iteration}, totals {found.totals} and room {found.room}. "
            "Use another."
        )
    tasks = {0, len(found.reference) if run is None else getattr(run, "validation", 0)}
    if len(found.reference) not in tasks or not all(map(math.isfinite, found.reference)):
        raise UserError(
            f"{path} cannot be used: it has a validation of {len(found.reference)} tasks, which is not the run's. Use "
            "another."
        )
    return found


def _at_most(thing: Trainable | None) -> int:
    """Return the bytes that a checkpoint of something may have; what is one's own may come to hold anything."""
    if thing is None or not type(thing.config).__module__.startswith("metarl."):
        return AT_MOST
    # A fresh one has not yet what it will have played.
    return most_bytes(size_of(thing.state_dict())) + getattr(thing, "later_bytes", 0)


def _fill(thing: Trainable, payload: dict[str, Any], path: Path) -> None:
    """Bring what is trained to a checkpoint.

    Raises:
        UserError: its networks are of other sizes, though the settings are the same: other code wrote it.
    """
    try:
        check_fits(payload.get("agent"), thing.state_dict())
        # Of what was None or empty in a fresh one, what is trained alone knows the form. It says so by a ValueError:
        # any other error is a mistake in it, and is shown as one.
        thing.load_state_dict(payload["agent"])
    except ValueError as error:
        raise UserError(f"{path} does not fit: {error}. Use the code that wrote it, or train anew.") from error
