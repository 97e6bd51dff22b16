"""Logs as Minari data sets: Minari reads them, they are read back as they were; what is none is refused in a line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.errors import UserError
from metarl.files import Folder
from metarl.identification import minari_data
from metarl.identification.log import read_log, to_minari
from metarl.identification.minari_data import write_minari
from tests.helpers.logs import recorded

minari = pytest.importorskip("minari", reason="needs Minari: pip install 'metarl-suite[minari]'")
h5py = pytest.importorskip("h5py", reason="needs h5py: pip install 'metarl-suite[minari]'")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    return tmp_path / "home"


def test_minari_reads_a_log(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = to_minari(recorded(tmp_path / "my log.npz"), tmp_path / "data")
    assert place == tmp_path / "data" / "my_log-v0"
    # Only what was named is written to.
    assert not home.exists()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["my_log-v0"]

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    assert list(minari.list_local_datasets()) == ["my_log-v0"]
    data = minari.load_dataset("my_log-v0")
    assert (data.total_episodes, data.total_steps) == (2, 3)
    first, second = data[0], data[1]
    np.testing.assert_array_equal(first.observations, [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    np.testing.assert_array_equal(first.actions, [[0.1, 0.2], [0.3, 0.4]])
    assert (first.rewards.tolist(), second.rewards.tolist()) == ([-1.0, -2.0], [-3.0])
    assert (first.terminations.tolist(), first.truncations.tolist()) == ([False, True], [False, False])
    assert (second.terminations.tolist(), second.truncations.tolist()) == ([False], [True])
    assert data.storage.metadata["family"] == "point-nav@maml17"
    assert data.storage.metadata["observation_names"] == ["x", "y"]
    starts = [told["start.position"].tolist() for told in data.storage.get_episode_metadata([0, 1])]
    assert starts == [[0.0, 1.0], [6.0, 7.0]]


def test_it_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = recorded(tmp_path / "log.npz")
    with np.load(path) as found:
        arrays = dict(found)
    arrays |= {"task.goal": np.array([[1.0, 2.0], [3.0, 4.0]]), "task.mass": np.array([0.5, 0.7])}
    arrays |= {
        "state.ticks": np.array([7, 8, 9]),
        "action_low": np.array([-1.0, -2.0]),
        "success": np.array([True, False]),
    }
    np.savez(path, **arrays)
    whole, again = read_log(path), read_log(to_minari(path, tmp_path / "data"))
    # Also by the folder that minari itself takes.
    assert read_log(tmp_path / "data" / "log-v0" / "data").family == "point-nav@maml17"
    assert (again.family, again.step_seconds) == (whole.family, whole.step_seconds)
    for name in ("lengths", "observations", "actions", "final_observations", "rewards"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name), strict=True)
    for group in ("starts", "tasks", "states"):
        ours, theirs = getattr(again, group), getattr(whole, group)
        assert set(ours) == set(theirs)
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name], strict=True)


def test_it_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recorded(tmp_path / "log.npz")
    storage = pytest.importorskip("minari.dataset._storages.hdf5_storage").HDF5Storage

    def full(*given: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "update_episode_metadata", full)
        with pytest.raises(OSError, match="full"):
            to_minari(path, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    to_minari(path, tmp_path / "data")
    with pytest.raises(UserError, match=r"is there already\. Remove it, or give another folder"):
        to_minari(path, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["log-v0"]


def test_what_minari_cannot_hold_is_refused(tmp_path: Path) -> None:
    with np.load(recorded(tmp_path / "log.npz")) as found:
        arrays = dict(found)
    large = arrays | {"start.map": np.zeros((2, 8000))}
    with pytest.raises(UserError, match=r"start\.map has 64000\. Write NPZ files"):
        write_minari(Folder(tmp_path / "data"), "log", large)
    del arrays["rewards"]
    with pytest.raises(UserError, match=r"the log has none\. Keep it as NPZ"):
        write_minari(Folder(tmp_path / "data"), "log", arrays)
    assert not (tmp_path / "data").exists()


def test_without_the_package_a_line_tells_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = to_minari(recorded(tmp_path / "log.npz"), tmp_path / "data")
    monkeypatch.setattr(minari_data, "find_spec", lambda name: None if name == "h5py" else name)
    line = r"needs the package h5py, which is not installed\. Install it with `pip install 'metarl-suite\[minari\]'`"
    with pytest.raises(UserError, match=line):
        read_log(place)
    with pytest.raises(UserError, match=line):
        to_minari(tmp_path / "log.npz", tmp_path / "more")
    assert not (tmp_path / "more").exists()


Spoil = Callable[[Any], Any]


def put(name: str, value: Any) -> Spoil:
    def spoil(file: Any) -> None:
        del file[name]
        file[name] = value

    return spoil


def outside(file: Any) -> None:
    del file["episode_0/rewards"]
    file["episode_0/rewards"] = h5py.ExternalLink("/etc/hostname", "/")


def elsewhere(file: Any) -> None:
    del file["episode_0/rewards"]
    file.create_dataset("episode_0/rewards", (2,), "f4", external=[("/etc/hostname", 0, 8)])


def virtual(file: Any) -> None:
    del file["episode_0/rewards"]
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (2,))
    file.create_virtual_dataset("episode_0/rewards", layout)


def endless(file: Any) -> None:
    del file["episode_0/actions"]
    # A few bytes in the file.
    file.create_dataset("episode_0/actions", (1 << 40, 2), "f8", chunks=(1024, 2), compression="gzip")


WRONG: dict[str, tuple[Spoil, str]] = {
    "gone": (lambda file: file.__delitem__("episode_0/rewards"), "rewards of /episode_0 is not there"),
    "no episode": (lambda file: [file.__delitem__(name) for name in list(file)], "has no episode"),
    "an episode": (lambda file: file.move("episode_1", "episode_7"), "episode_1 of / is not there"),
    "link": (outside, "rewards of /episode_0 is a link"),
    "another file": (elsewhere, "is kept in another file, which is not opened"),
    "virtual": (virtual, "is kept in another file, which is not opened"),
    "memory": (endless, "Needs about"),
    "words": (put("episode_0/rewards", ["a", "b"]), "holds object, and a log has numbers there"),
    "a number": (put("episode_0/rewards", 1.0), "is a single number. Give a row for every step"),
    "parts": (lambda file: (file.__delitem__("episode_0/observations"), file.create_group("episode_0/observations")),
              "observations of /episode_0 has parts, or none"),
    "rows": (put("episode_1/rewards", [1.0, 2.0]), "got 2 observations, 1 actions, 2 rewards"),
    "shapes": (put("episode_1/actions", np.zeros((1, 3))), "actions has rows of the shapes [(2,), (3,)]"),
    "not finite": (put("episode_1/rewards", [np.nan]), "rewards is not finite in row 2"),
    "start": (lambda file: file["episode_1"].attrs.__delitem__("start.position"), "/episode_1 has no start.position"),
    "start of words": (lambda file: file["episode_1"].attrs.__setitem__("start.position", "a"), "a log has numbers"),
    "start of another size": (
        lambda file: file["episode_1"].attrs.__setitem__("start.position", [1.0]),
        "start.position has rows of the shapes",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("right")
    return to_minari(recorded(folder / "log.npz"), folder)


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_in_a_line(case: str, right: Path, tmp_path: Path) -> None:
    spoil, says = WRONG[case]
    place = shutil.copytree(right, tmp_path / "wrong")
    with h5py.File(place / "data" / "main_data.hdf5", "a") as file:
        spoil(file)
    with pytest.raises(UserError) as refused:
        read_log(place)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_damage_is_told(right: Path, tmp_path: Path) -> None:
    place = shutil.copytree(right, tmp_path / "cut")
    data = place / "data" / "main_data.hdf5"
    whole = data.read_bytes()
    for count in (0, 100, len(whole) // 2):
        data.write_bytes(whole[:count])
        with pytest.raises(UserError, match=r"main_data\.hdf5 cannot be read .* It is damaged or no HDF5"):
            read_log(place)
    data.unlink()
    with pytest.raises(UserError, match=r"There is no .*main_data\.hdf5\. Copy the whole data set"):
        read_log(place)
    (place / "data" / "metadata.json").write_text("{")
    with pytest.raises(UserError, match=r"metadata\.json is damaged"):
        read_log(place)


def test_of_another_data_set_family_and_rate_are_asked_for(
    right: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = shutil.copytree(right, tmp_path / "other")
    path = place / "data" / "metadata.json"
    facts = json.loads(path.read_text())
    for name in ("family", "step_seconds", "log_format"):
        del facts[name]
    path.write_text(json.dumps(facts))
    with pytest.raises(UserError, match="has no family that a log needs") as refused:
        read_log(place)
    # The advice helps.
    advice = str(refused.value).partition("Add it: ")[2].removesuffix(".")
    exec(advice, {"minari": minari})
    log = read_log(place)
    assert (log.family, log.step_seconds, len(log)) == ("NAME@VARIANT", 0.02, 2)
    path.write_text(json.dumps(facts | {"family": "a", "step_seconds": 0.02, "log_format": [[1], [2, 3]]}))
    with pytest.raises(UserError, match=r"got format .*\. Give one number"):
        read_log(place)
    path.write_text(json.dumps(facts | {"data_format": "arrow"}))
    with pytest.raises(UserError, match="is kept as 'arrow', and HDF5 is read here"):
        read_log(place)
