from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl import files
from metarl.errors import UserError
from metarl.run.checkpoint import CheckpointFolder, load, read_header, save
from metarl.run.formats import FORMAT
from metarl.version import __version__

HEADER: dict[str, Any] = {"family": "point-nav", "config": {"rate": 0.1, "hidden": (64, 64)}}


def payload(number: float = 1.0) -> dict[str, Any]:
    return {
        "agent": {"w": torch.full((3,), number)},
        "iteration": 4,
        "scores": [0.5],
        "mixed": (1, None, "a"),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(tmp_path / "last.pt", payload(), HEADER)
    return tmp_path / "last.pt"


def test_a_checkpoint_comes_back_as_it_was(path: Path) -> None:
    back = load(path, HEADER)
    assert torch.equal(back["agent"]["w"], torch.ones(3))
    assert (back["iteration"], back["scores"], back["mixed"]) == (4, [0.5], (1, None, "a"))
    whole = {"format": FORMAT, "version": __version__, **HEADER, "config": {"rate": 0.1, "hidden": [64, 64]}}
    assert read_header(path) == whole
    assert [entry.name for entry in path.parent.iterdir()] == ["last.pt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "ant-dir"}, "family is 'point-nav' there and 'ant-dir' here"),
        ({"config": {"rate": 0.2, "hidden": [64, 64]}}, r"config\.rate is 0\.1 there and 0\.2 here"),
        ({"config": {"rate": 0.1}}, r"config\.hidden is \[64, 64\] there and None here"),
        ({"config": {**HEADER["config"], "new": 1}}, r"config\.new is None there and 1 here"),
        ({"seed": 0}, "seed is None there and 0 here"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(path, {**HEADER, **change})


@pytest.mark.parametrize("keep", [0, 5, 22, 60, 100, 300, -1])
def test_a_truncated_file_is_refused(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"truncated or damaged|not a checkpoint|has checkpoint format"):
        load(path, HEADER)


def test_every_damaged_bit_is_noticed(path: Path) -> None:
    good = path.read_bytes()
    for place in range(0, len(good), 97):
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bytes(bad))
        with pytest.raises(UserError):
            load(path, HEADER)


def test_foreign_and_other_formats_and_missing_files_are_refused(path: Path) -> None:
    content = path.read_bytes()
    torch.save(payload(), path)
    with pytest.raises(UserError, match="is not a checkpoint of metarl"):
        load(path, HEADER)
    path.write_bytes(content.replace(b"metarl checkpoint 1", b"metarl checkpoint 99", 1))
    with pytest.raises(UserError, match="has checkpoint format 99, this version reads 1"):
        load(path, HEADER)
    path.unlink()
    with pytest.raises(UserError, match="There is no checkpoint"):
        load(path, HEADER)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    torch.save({"agent": Trap()}, tmp_path / "raw.pt")
    body = b'{"config": {}}\n' + (tmp_path / "raw.pt").read_bytes()
    digest = hashlib.sha256(body).hexdigest().encode()
    (tmp_path / "last.pt").write_bytes(b"metarl checkpoint 1\n" + digest + b"\n" + body)
    with pytest.raises(UserError, match=r"it holds posix\.mkdir, neither plain data"):
        load(tmp_path / "last.pt", {})
    assert not (tmp_path / "trapped").exists()


def test_a_payload_that_could_not_be_read_back_is_not_written(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match="tensors and plain data only"):
        save(path, {"agent": torch.nn.Linear(1, 1)}, HEADER)
    assert path.read_bytes() == before
    save(path, {"ordered": OrderedDict(a=torch.ones(1))}, HEADER)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(files.os, failing, fail)
    with pytest.raises(OSError, match="no space left"):
        save(path, payload(2.0), HEADER)
    monkeypatch.undo()
    assert torch.equal(load(path, HEADER)["agent"]["w"], torch.ones(3))


def test_the_folder_keeps_last_previous_and_best(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    for number, score in enumerate([1.0, 5.0, None, 3.0, float("nan")]):
        folder.save(payload(number), HEADER, score)
    kept = {
        name: load(folder.path / f"{name}.pt", HEADER)["agent"]["w"][0].item() for name in ("last", "previous", "best")
    }
    assert kept == {"last": 4.0, "previous": 3.0, "best": 1.0}
    assert folder.best_score() == 5.0
    assert CheckpointFolder(folder.path).best_score() == 5.0
    assert load(folder.path / "last.pt", HEADER)["agent"]["w"][0] == 4.0


def test_a_bad_last_checkpoint_offers_the_good_previous_one_and_never_replaces_it(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(payload(1.0), HEADER)
    folder.save(payload(2.0), HEADER)
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"truncated.* add --checkpoint previous to use it"):
        load(folder.path / "last.pt", HEADER)
    # Neither is offered where it would not fit.
    with pytest.raises(UserError, match="truncated") as caught:
        load(folder.path / "last.pt", {**HEADER, "family": "ant-dir"})
    assert "--checkpoint" not in str(caught.value)

    folder.save(payload(3.0), HEADER)
    assert load(tmp_path / "previous.pt", HEADER)["agent"]["w"][0] == 1.0
    assert load(folder.path / "last.pt", HEADER)["agent"]["w"][0] == 3.0


def test_the_folder_is_good_after_every_single_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a save before each of its renamings: what is there must load, and be of this save or the last."""
    replace = os.replace

    class Killed(BaseException):
        pass

    for allowed in range(4):
        folder = CheckpointFolder(tmp_path / str(allowed))
        folder.save(payload(1.0), HEADER, score=1.0)
        folder.save(payload(2.0), HEADER, score=2.0)
        left = allowed

        def counted(*arguments: Any, **options: Any) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            replace(*arguments, **options)

        monkeypatch.setattr(os, "replace", counted)
        try:
            folder.save(payload(3.0), HEADER, score=3.0)
            finished = True
        except Killed:
            finished = False
        monkeypatch.setattr(os, "replace", replace)
        assert finished == (allowed == 3)
        assert load(folder.path / "last.pt", HEADER)["agent"]["w"][0] == (3.0 if finished else 2.0)
        assert load(folder.path / "best.pt", HEADER)["agent"]["w"][0] == (3.0 if allowed > 0 else 2.0)
        load(folder.path / "previous.pt", HEADER)


def test_a_checkpoint_that_has_grown_is_refused_by_its_size(path: Path) -> None:
    whole = path.read_bytes()
    for size in (len(whole) + 1, 3 << 30):
        os.truncate(path, size)
        with pytest.raises(UserError, match=r"last\.pt is truncated or damaged: [\d,]+ bytes follow"):
            load(path, HEADER)
    # The end where it should be, and a hole before it.
    with path.open("r+b") as file:
        file.write(whole)
        file.seek((3 << 30) - 100)
        file.write(whole[-100:])
    with pytest.raises(UserError, match=r"bytes follow its header, and [\d,]+ should"):
        load(path, HEADER)
    with pytest.raises(UserError, match=r"and at most 1000000 are read here"):
        load(path, HEADER, 1_000_000)
    checkpoints = CheckpointFolder(path.parent)
    checkpoints.save(payload(2.0), HEADER, 1.0)
    assert not (path.parent / "previous.pt").exists()
    assert torch.equal(load(path, HEADER)["agent"]["w"], torch.full((3,), 2.0))


def test_a_checkpoint_that_does_not_fit_into_memory_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.memory.LITTLE", 0)
    monkeypatch.setattr("metarl.memory.free_memory", lambda device: 1000)
    with pytest.raises(UserError, match=r"lower the size of .*last\.pt"):
        load(path, HEADER)


def test_true_is_not_one(path: Path) -> None:
    header = {"family": "a", "config": {"flag": True, "many": [1, {"x": False}]}}
    save(path, payload(), header)
    load(path, {"family": "a", "config": {"flag": True, "many": (1, {"x": False})}})
    for config in ({"flag": 1, "many": [1, {"x": False}]}, {"flag": True, "many": [1, {"x": 0}]}):
        with pytest.raises(UserError, match="there and"):
            load(path, {"family": "a", "config": config})
