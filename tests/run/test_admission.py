"""Attacks by run folders that hold a signature of the user's, copied from a run that the user made."""

from __future__ import annotations

import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from metarl.errors import UserError
from metarl.run import beside
from metarl.run.admission import admit, admitted, uses_present
from metarl.run.beside import with_beside
from metarl.run.sources import BESIDE, Source, digest, from_folder, of_file

CODE = "x = 1\n"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Source, ...]:
    """Return what the run `mine/r` of a user says of its file, `mine/net.py`, which imports another one."""
    file, run = tmp_path / "mine" / "net.py", tmp_path / "mine" / "r"
    run.mkdir(parents=True)
    file.write_text("import helper\n")
    (tmp_path / "mine" / "helper.py").write_text(CODE)
    return told(tmp_path, of_file("family", file))


def told(tmp_path: Path, *sources: Source) -> tuple[Source, ...]:
    return tuple(from_folder(source, tmp_path / "mine" / "r") for source in with_beside(sources))


def theirs(tmp_path: Path) -> Path:
    """Return the run in a copy of the project, which somebody else sends back."""
    shutil.copytree(tmp_path / "mine", tmp_path / "theirs")
    return tmp_path / "theirs" / "r"


def test_a_copy_with_nothing_changed_needs_nothing(made: tuple[Source, ...], tmp_path: Path) -> None:
    assert [source.role for source in made] == ["family", BESIDE]
    run = theirs(tmp_path)
    assert admit(run, made, signed=True, trust=False) == {"family": run.parent / "net.py"}
    shutil.rmtree(tmp_path / "mine")
    # What cannot be imported from there, and what is empty, does not count.
    (run.parent / "notes.txt").write_text("read me")
    (run.parent / "empty.py").touch()
    (run.parent / ".venv").mkdir()
    (run.parent / ".venv" / "numpy.py").write_text(CODE)
    assert admit(run, made, signed=True, trust=False) == {"family": run.parent / "net.py"}


def _changed(project: Path) -> None:
    (project / "net.py").write_text("y = 2\n")


def _helper(project: Path) -> None:
    (project / "helper.py").write_text("y = 2\n")


def _shadow(project: Path) -> None:
    (project / "numpy.py").write_text(CODE)


def _package(project: Path) -> None:
    (project / "scipy").mkdir()
    (project / "scipy" / "deep.py").write_text(CODE)


def _library(project: Path) -> None:
    (project / "_json.abi3.so").write_bytes(b"\x7fELF")


def _sourceless(project: Path) -> None:
    (project / "yaml.pyc").write_bytes(b"code")


def _linked(project: Path) -> None:
    (project.parent / "evil").mkdir()
    (project.parent / "evil" / "torch.py").write_text(CODE)
    (project / "sub").symlink_to(project.parent / "evil")


def _nowhere(project: Path) -> None:
    (project / "torch.py").symlink_to("nowhere")


def _renamed(project: Path) -> None:
    (project / "helper.py").rename(project / "torch.py")


def _pipe(project: Path) -> None:
    os.mkfifo(project / "torch.py")


def _deep(project: Path) -> None:
    deep = project.joinpath(*"a" * 60)
    deep.mkdir(parents=True)
    (deep / "torch.py").write_text(CODE)


@pytest.mark.parametrize(
    "attack",
    [
        _deep,
        _changed,
        _helper,
        _shadow,
        _package,
        _library,
        _sourceless,
        _linked,
        _nowhere,
        _renamed,
        pytest.param(_pipe, marks=pytest.mark.skipif(os.name == "nt", reason="no pipes")),
    ],
)
def test_a_copied_signature_does_not_speak_for_other_files(
    attack: Callable[[Path], None], made: tuple[Source, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = theirs(tmp_path)
    shutil.rmtree(tmp_path / "mine")
    attack(run.parent)
    with pytest.raises(UserError, match=r"would execute .*/theirs/net\.py \(family, sha256 \w{12}\), .*add --trust"):
        admit(run, made, signed=True, trust=False)
    assert admitted(run, made, signed=True, trust=False) == {}
    # The advice works; of a change one is told.
    assert admit(run, made, signed=True, trust=True) == {"family": run.parent / "net.py"}
    assert ("has changed" in capsys.readouterr().err) == (attack is _changed)


def test_ones_own_files_in_their_own_place_may_change(made: tuple[Source, ...], tmp_path: Path) -> None:
    for attack in (_changed, _helper, _shadow):
        attack(tmp_path / "mine")
    (tmp_path / "mine" / "r").rename(tmp_path / "r")
    assert admit(tmp_path / "r", made, signed=True, trust=False) == {"family": tmp_path / "mine" / "net.py"}


@pytest.mark.skipif(sys.platform == "win32", reason="files have no owner there")
def test_a_file_of_somebody_else_in_ones_own_place_asks(
    made: tuple[Source, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _changed(tmp_path / "mine")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(UserError, match="has changed"):
        admit(tmp_path / "mine" / "r", made, signed=True, trust=False)


def test_a_run_from_before_there_was_a_list_of_neighbours_asks_where_there_are_some(
    made: tuple[Source, ...], tmp_path: Path
) -> None:
    run = theirs(tmp_path)
    shutil.rmtree(tmp_path / "mine")
    with pytest.raises(UserError, match="other files are beside it"):
        admit(run, made[:1], signed=True, trust=False)
    (run.parent / "helper.py").unlink()
    admit(run, made[:1], signed=True, trust=False)


def test_more_neighbours_than_can_be_looked_at_are_unknown(
    made: tuple[Source, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = theirs(tmp_path)
    monkeypatch.setattr(beside, "MOST", 2)
    unknown = told(tmp_path, *made)
    assert unknown[-1].sha256 == beside.UNKNOWN
    for told_of in (made, unknown):
        with pytest.raises(UserError, match="other files are beside it"):
            admit(run, told_of, signed=True, trust=False)


def test_a_file_that_the_family_names_is_not_taken_from_beside_a_copy(tmp_path: Path) -> None:
    """The user's own is where it was; but Python would take the one beside the copy of the family."""
    run = tmp_path / "mine" / "r"
    run.mkdir(parents=True)
    sources = []
    for role, name in (("family", "net.py"), ("make", "reach.py")):
        (tmp_path / "mine" / name).write_text(f"# {name}\n")
        sources.append(of_file(role, tmp_path / "mine" / name))
    made = told(tmp_path, *sources)
    run = theirs(tmp_path)
    admit(run, made, signed=True, trust=False)
    (run.parent / "reach.py").write_text("y = 2\n")
    with pytest.raises(UserError, match=r"theirs/net\.py \(family"):
        admit(run, made, signed=True, trust=False)


@pytest.mark.parametrize("where", ["present", "path"])
def test_a_module_of_the_present_folder_does_not_take_the_place_of_ones_own(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "mine" / "networks_of_a_user"
    inside.mkdir(parents=True)
    (tmp_path / "mine" / "r").mkdir()
    (inside / "__init__.py").touch()
    (inside / "small.py").write_text(CODE)
    made = told(tmp_path, of_file("backbone", inside / "small.py", "networks_of_a_user.small"))
    run = theirs(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    if where == "present":
        monkeypatch.chdir(run.parent)
    else:
        sys.path.insert(0, str(run.parent))
    (run.parent / "r").rename(tmp_path / "r")
    assert admit(tmp_path / "r", made, signed=True, trust=False)["backbone"] == inside / "small.py"
    (run.parent / "networks_of_a_user" / "small.py").write_text("y = 2\n")
    if where == "present":
        # Python is not to look there.
        found = admit(tmp_path / "r", made, signed=True, trust=False)
        assert not uses_present(made, found, signed=True, trust=False)
        return
    with pytest.raises(
        UserError, match=r"theirs/networks_of_a_user/small\.py \(backbone, module networks_of_a_user\.small"
    ):
        admit(tmp_path / "r", made, signed=True, trust=False)
    # Its package is executed too.
    (run.parent / "networks_of_a_user" / "small.py").write_text(CODE)
    (run.parent / "networks_of_a_user" / "__init__.py").write_text("y = 2\n")
    with pytest.raises(UserError, match="other files are beside it"):
        admit(tmp_path / "r", made, signed=True, trust=False)


def test_an_installed_module_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    assert admit(tmp_path, [Source(role="backbone", module="this")], signed=True, trust=False) == {"backbone": None}


def test_bytecode_of_a_copy_is_not_taken(made: tuple[Source, ...], tmp_path: Path) -> None:
    """Its source is the user's, letter for letter; its bytecode is not, and says that nobody need look at that."""
    run = theirs(tmp_path)
    canary = tmp_path / "canary"
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(canary)!r}, 'w').close()\n")
    helper = run.parent / "helper.py"
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(evil), cache_from_source(str(helper)), doraise=True, invalidation_mode=unchecked)
    code = f"import sys; sys.path.insert(0, {str(run.parent)!r}); import helper"
    subprocess.run([sys.executable, "-S", "-c", code], check=True)
    assert canary.exists(), "this is how Python works"
    canary.unlink()
    admit(run, made, signed=True, trust=False)
    assert sys.pycache_prefix is not None
    # As workers do, which take the environment.
    subprocess.run([sys.executable, "-S", "-c", code], check=True)
    assert not canary.exists()


def test_without_a_home_bytecode_has_a_folder_of_its_own(
    made: tuple[Source, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("there is no home")

    monkeypatch.setattr(beside, "key_file", homeless)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    admit(theirs(tmp_path), made, signed=False, trust=True)
    assert Path(str(sys.pycache_prefix)).parent == tmp_path


def test_ones_own_bytecode_is_taken(made: tuple[Source, ...], tmp_path: Path) -> None:
    before = sys.pycache_prefix
    admit(tmp_path / "mine" / "r", made, signed=True, trust=False)
    assert sys.pycache_prefix == before


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "/dev/zero", "given": "/dev/zero"},
        {"path": "../../../../../../dev/random", "given": ""},
        {"path": "r", "given": "/proc/self/pagemap"},
        {"path": "a" * 5000, "given": "\0"},
        {"path": "", "given": "", "module": "os.path"},
        {"path": "", "given": "", "module": "...a.b"},
        {"path": "config.yaml", "given": ""},
        {"role": "no such role"},
    ],
)
def test_whatever_strangers_name_is_neither_executed_nor_waited_for(
    entry: dict[str, str], made: tuple[Source, ...], tmp_path: Path
) -> None:
    (tmp_path / "mine" / "r" / "config.yaml").write_text("x")
    sources = [replace(made[0], **entry), *made, *made]
    with pytest.raises(UserError, match=r"not made by you|cannot be read|are read here"):
        admit(tmp_path / "mine" / "r", sources, signed=False, trust=False)
    assert admitted(tmp_path / "mine" / "r", sources, signed=False, trust=False) == {}


def test_the_hash_that_is_shown_is_of_what_would_be_executed(made: tuple[Source, ...], tmp_path: Path) -> None:
    _changed(tmp_path / "mine")
    file = tmp_path / "mine" / "net.py"
    with pytest.raises(UserError, match=rf"{file} \(family, sha256 {digest(file)[:12]}\)\. If you trust"):
        admit(tmp_path / "mine" / "r", made, signed=False, trust=False)


def test_a_run_imports_nothing_from_a_present_folder_that_its_files_are_not_in(
    made: tuple[Source, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One's own file may try to import what is not installed: a folder that somebody sent must not have it."""
    run = theirs(tmp_path)
    own, copied = {"family": tmp_path / "mine" / "net.py"}, {"family": run.parent / "net.py"}
    monkeypatch.chdir(run)
    assert not uses_present(made, own, signed=True, trust=False)
    monkeypatch.chdir(run.parent)
    assert not uses_present(made, own, signed=True, trust=False)
    assert uses_present(made, own, signed=False, trust=True)
    assert uses_present(made, copied, signed=True, trust=False)
    _shadow(run.parent)
    assert not uses_present(made, copied, signed=True, trust=False)
    monkeypatch.chdir(tmp_path / "mine")
    _shadow(tmp_path / "mine")
    assert uses_present(made, own, signed=True, trust=False)
    assert not uses_present(made, {"family": None}, signed=True, trust=False)


def test_what_was_in_the_present_folder_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine" / "sub" / "net.py"
    file.parent.mkdir(parents=True)
    file.write_text("import common\n")
    (tmp_path / "mine" / "r").mkdir()
    (tmp_path / "mine" / "common.py").write_text(CODE)
    monkeypatch.chdir(tmp_path / "mine")
    made = told(tmp_path, of_file("family", file))
    run = theirs(tmp_path)
    monkeypatch.chdir(run.parent)
    found = admit(run, made, signed=True, trust=False)
    assert uses_present(made, found, signed=True, trust=False)
    (run.parent / "common.py").write_text("y = 2\n")
    assert not uses_present(made, found, signed=True, trust=False)
