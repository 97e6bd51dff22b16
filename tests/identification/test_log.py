"""Logs: what one's own loop writes is read as it was; what is no log is refused in a line."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.errors import UserError
from metarl.identification.log import read_log
from tests.helpers.logs import recorded
from tests.helpers.readme import block


def test_what_a_loop_writes_is_read_as_it_was(tmp_path: Path) -> None:
    log = read_log(recorded(tmp_path / "log.npz"))
    assert (log.family, log.step_seconds, log.lengths.tolist()) == ("point-nav@maml17", 0.1, [2, 1])
    np.testing.assert_array_equal(log.observations, [[0.0, 1.0], [2.0, 3.0], [6.0, 7.0]])
    np.testing.assert_array_equal(log.final_observations, [[4.0, 5.0], [8.0, 9.0]])
    np.testing.assert_array_equal(log.actions, [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    assert log.rewards is not None
    np.testing.assert_array_equal(log.rewards, [-1.0, -2.0, -3.0])
    np.testing.assert_array_equal(log.starts["position"], [[0.0, 1.0], [6.0, 7.0]])
    np.testing.assert_array_equal(log.seen(0), [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    second = log.of(np.array([1]))
    assert (len(second), second.actions.tolist(), second.firsts.tolist()) == (1, [[0.5, 0.6]], [0])
    with np.load(tmp_path / "log.npz") as arrays:
        assert arrays["terminated"].tolist() == [True, False]
        assert arrays["truncated"].tolist() == [False, True]


def test_a_log_is_not_overwritten_and_not_half_written(tmp_path: Path) -> None:
    path = recorded(tmp_path / "log.npz")
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="give another name"):
        recorded(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["log.npz"]


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.pop(name)


def changed(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.update({name: np.array(value)})


NAN = [[np.nan, 1.0], [2.0, 3.0], [6.0, 7.0]]
WRONG = {
    "missing": (without("actions"), "no array 'actions', which a log needs"),
    "unknown": (changed("observation", 1.0), "an array 'observation', which no log has. Did you mean 'observations'"),
    "version": (changed("format", 2), "has the layout 2, and 1 is read here"),
    "rate": (changed("step_seconds", 0.0), "got step_seconds 0"),
    "rate of words": (changed("step_seconds", "50 Hz"), "got step_seconds '50 Hz'. Give one number"),
    "name": (changed("family", 3.0), "got family 3.0. Give one text"),
    "long name": (changed("family", "x" * 1001), "family has 1,001 letters. Give a text of at most 1,000"),
    "no episode": (changed("lengths", np.zeros(0)), "Give whole steps of each episode, from 1"),
    "half a step": (changed("lengths", [1.5, 1.5]), "Give whole steps of each episode, from 1"),
    "lengths": (changed("lengths", [2, 2]), "observations has 3 rows, and lengths say 4"),
    "rows": (changed("rewards", [1.0, 2.0]), "rewards has 2 rows, and lengths say 3"),
    "final": (changed("final_observations", np.zeros((2, 3))), "have 3 numbers, and observations 2"),
    "axes": (changed("actions", [1.0, 2.0, 3.0]), "actions has the shape (3,). Give rows of numbers"),
    "not finite": (changed("observations", NAN), "observations is not finite in row 0"),
    "complex": (changed("actions", np.zeros((3, 2), complex)), "actions holds complex128. Give real numbers"),
    "starts": (changed("start.position", np.zeros((3, 2))), "start.position has 3 rows, and lengths say 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_in_a_line(case: str, tmp_path: Path) -> None:
    spoil, says = WRONG[case]
    with np.load(recorded(tmp_path / "log.npz")) as right:
        arrays = dict(right)
    spoil(arrays)
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(UserError) as refused:
        read_log(tmp_path / "wrong.npz")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "run",)

    pickled = np.empty(1, dtype=object)
    pickled[0] = Harm()
    np.savez(tmp_path / "log.npz", allow_pickle=True, actions=pickled)
    with pytest.raises(UserError, match="holds objects, and numbers and words are read"):
        read_log(tmp_path / "log.npz")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(UserError, match="cannot be read as an archive"):
        read_log(tmp_path / "pickle.npz")
    assert not (tmp_path / "run").exists()


def test_what_is_no_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    whole = recorded(tmp_path / "log.npz").read_bytes()
    for count in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:count])
        with pytest.raises(UserError, match="cannot be read as an archive"):
            read_log(tmp_path / "cut.npz")
    # Numpy stores arrays as they are, so that one of them begins 128 bytes behind its name.
    at = whole.index(b"observations.npy") + 200
    (tmp_path / "altered.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(UserError, match=r"cannot be read as an archive \(observations\.npy: Bad CRC-32"):
        read_log(tmp_path / "altered.npz")
    with pytest.raises(UserError, match=r"There is no .*absent\.npz"):
        read_log(tmp_path / "absent.npz")
    with pytest.raises(UserError, match="is a folder, and a regular file is needed"):
        read_log(tmp_path)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("notes.txt", "no array")
    (tmp_path / "notes.npz").write_bytes(stream.getvalue())
    with pytest.raises(UserError, match=r"holds 'notes\.txt', which is no array"):
        read_log(tmp_path / "notes.npz")


def test_the_example_of_the_readme_writes_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(block("metarl/identification/README.md", "Recorder"), {})
    log = read_log("log.npz")
    assert (log.family, log.lengths.tolist(), log.observations.shape, log.actions.shape) == (
        "half-cheetah-vel@v5",
        [1],
        (1, 17),
        (1, 6),
    )
