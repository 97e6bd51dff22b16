"""Checkpoints by somebody else, whose checksum fits: each is taken as it is, or refused in one line."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.run.checkpoint import read_header
from metarl.run.folder import RunFolder
from metarl.run.settings import RunConfig
from metarl.run.tensors import Foreign, read_payload
from metarl.seeding import Streams
from tests.helpers.mutations import at, mutations, paths, replaced, seal, unseal
from tests.helpers.run_folders import CONFIG, quiet
from tests.helpers.same import assert_same
from tests.helpers.tiny_run import RUN, Follower, FollowerConfig, start


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "run"
    start(folder, CONFIG, iterations=5, console=quiet())
    (folder / "checkpoints" / "previous.pt").unlink()
    return folder


def saved(payload: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


def restored(folder: Path) -> dict[str, Any] | None:
    """Return all that a checkpoint brings back; None where it is refused."""
    agent, streams = Follower(CONFIG), Streams(RUN.seed)
    try:
        with RunFolder(folder).open(RUN, agent, resume=True) as opened:
            standing = opened.restore("last", streams)
        RunFolder(folder).standing("last")
    except UserError:
        return None
    assert agent.position.dtype == torch.float64
    return {"agent": agent.state_dict(), "streams": streams.state_dict(), **vars(standing)}


def foreign() -> dict[str, Any]:
    """Return what is no plain tensor of float64 with four numbers."""
    half = torch.ones(4, dtype=torch.float64)
    return {
        "sparse": half.to_sparse(),
        "meta": half.to("meta"),
        "complex": half.to(torch.complex128),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(2)], dtype=torch.float64, layout=torch.jagged),
        "float32": half.float(),
        "integers": half.long(),
        "longer": torch.ones(5, dtype=torch.float64),
        "deeper": half[None],
        "empty": half[:0],
        "repeated": torch.ones(1, dtype=torch.float64).expand(1 << 40),
        "nan": half * float("nan"),
        "array": np.ones(4),
        "module": torch.nn.Linear(1, 1),
        "bytes": b"1234",
        "set": {1.0},
        "complex number": 1j,
        "type": torch.float64,
        "device": torch.device("cpu"),
    }


def test_every_tensor_is_checked(run: Path) -> None:
    last = run / "checkpoints" / "last.pt"
    whole = last.read_bytes()
    magic, header, content = unseal(last)
    payload = read_payload(content)
    places = [path for path in paths(payload) if isinstance(at(payload, path), torch.Tensor)]
    assert len(places) == 4
    try:
        for place in places:
            for value in foreign().values():
                seal(last, magic, header, saved(replaced(payload, place, value)))
                assert restored(run) is None
    finally:
        last.write_bytes(whole)


def test_every_other_entry_is_checked(run: Path) -> None:
    last = run / "checkpoints" / "last.pt"
    whole = last.read_bytes()
    magic, header, content = unseal(last)
    payload = read_payload(content)
    outcomes = {"taken": 0, "refused": 0}
    try:
        for where, changed in islice(mutations(payload), 0, None, 4):
            seal(last, magic, header, saved(changed))
            found = restored(run)
            outcomes["refused" if found is None else "taken"] += 1
            if found is not None:
                # Whole numbers among the figures become floats of the same value.
                assert_same(
                    *({name: of[name] for name in ("agent", "streams", "iteration")} for of in (found, changed))
                )
                free = ("iteration", "totals", "row", "scores", "room", "waited", "rises", "more")
                assert where == () or where[0] in free, where
        for where, changed in islice(mutations(header), 0, None, 4):
            seal(last, magic, changed, content)
            found = restored(run)
            outcomes["refused" if found is None else "taken"] += 1
            # 0 may stand for 0.0, as Python compares them.
            assert found is None or where == () or where[0] in ("version", "score") or changed == header, where
    finally:
        last.write_bytes(whole)
    assert outcomes["refused"] > 100


def test_a_sum_over_the_run_below_nothing_is_refused(run: Path) -> None:
    last = run / "checkpoints" / "last.pt"
    whole = last.read_bytes()
    magic, header, content = unseal(last)
    payload = read_payload(content)
    try:
        for wrong in (-1.0, float("nan")):
            totals = dict.fromkeys(payload["totals"], wrong)
            seal(last, magic, header, saved({**payload, "totals": totals}))
            assert restored(run) is None
    finally:
        last.write_bytes(whole)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[" * 10**5, "damaged"),
        (b"[]", "an object"),
        (b'{"format": 9' + b"0" * 5000 + b"}", "digits"),
        (b"", "damaged"),
    ],
)
def test_headers_that_are_no_plain_json_are_refused(tmp_path: Path, text: bytes, says: str) -> None:
    seal(tmp_path / "last.pt", b"metarl checkpoint 1", text, b"")
    with pytest.raises(UserError, match=says):
        read_header(tmp_path / "last.pt")


def archive(payload: Any, change: Any, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a payload whose archive has other files."""
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(saved(payload))) as given:
        files = {name: given.read(name) for name in given.namelist()}
    change(files)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return buffer.getvalue()


def swap(old: bytes, new: bytes) -> Any:
    """Return what replaces bytes of the pickle."""

    def change(files: dict[str, bytes]) -> None:
        assert old in files["archive/data.pkl"]
        files["archive/data.pkl"] = files["archive/data.pkl"].replace(old, new)

    return change


TENSOR = {"a": torch.ones(3)}
DEEP = b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."
PICKLE_END = b"s."


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda files: files.update({"archive/data/0": b"\0" * 8}), r"3 numbers of torch\.float32"),
        (lambda files: files.pop("archive/data/0"), "no archive"),
        (lambda files: files.pop("archive/data.pkl"), "no archive"),
        (lambda files: files.update({"archive/byteorder": b"big"}), "big-endian"),
        (lambda files: files.update({"archive/data.pkl": b""}), "no archive"),
        (lambda files: files.update({"archive/data.pkl": b"\x80\x02]."}), "a mapping is needed"),
        (lambda files: files.update({"archive/data.pkl": b"\x80\x02}q\0(X\1\0\0\0ah\0u."}), "stand one in the other"),
        (lambda files: files.update({"archive/data.pkl": b"(" * 10**6 + b"."}), "no archive"),
        (
            lambda files: files.update({"archive/data.pkl": b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."}),
            "mapping",
        ),
        (swap(b"K\x00K\x03\x85", b"K\x01K\x03\x85"), "reaches beyond"),
        (swap(b"K\x00K\x03\x85", b"K\x00K\x04\x85"), "reaches beyond"),
        (swap(b"K\x00K\x03\x85", b"K\x00J\xff\xff\xff\xff\x85"), "no possible shape"),
        (swap(b"K\x01\x85", b"J\xff\xff\xff\xff\x85"), "no possible shape"),
        (swap(b"K\x01\x85", b"K\x02\x85"), "reaches beyond"),
        (swap(b"torch\nFloatStorage", b"torch\nHalfStorage"), "3 numbers"),
        (swap(b"_rebuild_tensor_v2", b"_rebuild_tensor_v3"), "neither plain data"),
        (swap(b"ctorch._utils\n_rebuild_tensor_v2", b"cos\nsystem"), "neither plain data"),
        (swap(PICKLE_END, b"}bs."), "after it was made|no archive"),
        (swap(b"\x89", b"K\x05"), "with hooks"),
    ],
)
def test_archives_that_are_made_by_hand_are_refused(change: Any, says: str) -> None:
    with pytest.raises(Foreign, match=says):
        read_payload(archive(TENSOR, change))


def test_archives_are_not_unpacked() -> None:
    bomb = archive({"a": torch.zeros(10**6)}, lambda files: None, zipfile.ZIP_DEFLATED)
    with pytest.raises(Foreign, match="is compressed"):
        read_payload(bomb)
    for content in (b"", b"PK", saved(TENSOR)[:-30], b"\x80\x02}."):
        with pytest.raises(Foreign, match="no archive"):
            read_payload(content)


def test_what_is_shared_is_looked_at_once() -> None:
    shared: list[Any] = []
    for _ in range(25):
        shared = [shared, shared]
    found = read_payload(saved({"a": shared}))["a"]
    assert found[0] is found[1]


def test_plain_payloads_come_back_exactly() -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    payload = {
        "a": [1, -(2**70), 2.5, None, True, "é", (1, [2])],
        "views": [shared, shared[1:, ::2], shared.T, torch.ones(1).expand(1, 1)],
        "kinds": [
            torch.ones(2).to(kind) for kind in (torch.bfloat16, torch.float16, torch.int8, torch.bool, torch.uint8)
        ],
        "none": torch.zeros(0, 3),
        "number": torch.tensor(3.0),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "module": torch.nn.BatchNorm1d(2).state_dict(),
    }
    assert_same(read_payload(saved(payload)), torch.load(io.BytesIO(saved(payload)), weights_only=True))


def test_a_run_of_another_kind_is_told(run: Path) -> None:
    assert RunFolder(run).settings(RunConfig)[0] == RUN


def test_a_checkpoint_is_as_large_as_what_is_trained_can_make_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    os.truncate(folder / "checkpoints" / "last.pt", 1 << 30)
    # An agent of one's own may come to hold anything: the end of the file says that it has grown.
    with pytest.raises(UserError, match=r"bytes follow its header"):
        RunFolder(folder).standing("last", Follower(CONFIG))
    monkeypatch.setattr(FollowerConfig, "__module__", "metarl.agents.follower")
    with pytest.raises(UserError, match=r"has 1073741824 bytes, and at most 67\d{6} are read here"):
        RunFolder(folder).standing("last", Follower(CONFIG))
    assert restored(run) is not None
