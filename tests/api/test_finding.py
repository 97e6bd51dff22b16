"""Runs on a user's own family: found where the project is now, and not executed unless the user may want it."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import metarl
from metarl.cli.main import main
from metarl.envs import register
from metarl.envs.external import child
from metarl.envs.families.point_nav import PointNav
from metarl.errors import UserError
from metarl.run.checkpoint import _SEAL
from metarl.run.folder import RunFolder
from metarl.run.settings import RunConfig
from tests.helpers.own_projects import FAMILY, PACKAGED, forget, package, project, trained_in
from tests.helpers.readme import ROOT
from tests.helpers.run_folders import logged
from tests.helpers.tiny_trainings import FEW, SMALL

SMALLEST: dict[str, Any] = {**FEW, "steps": 1}
OPTIONS = ["--tasks", "3", "--episodes", "2", "--threads", "1", "--steps", "1", "--no-film", "--json"]


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(child, "FOLDERS", [])
    monkeypatch.setattr(child, "AVOIDED", set())
    yield
    forget()


def edit(folder: Path, **entries: Any) -> None:
    """Change entries of a run's config.yaml."""
    content = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**content, **entries}))


def unsigned(run: Path) -> Path:
    """Make a run one that somebody else has made."""
    edit(run, signature="0" * 64)
    return run


def test_a_project_that_was_renamed_goes_on_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project(tmp_path / "a")
    trained_in(file, tmp_path / "whole", iterations=2)
    trained_in(file, tmp_path / "a" / "runs" / "r")
    (tmp_path / "a").rename(tmp_path / "b")
    run = tmp_path / "b" / "runs" / "r"
    capsys.readouterr()
    assert main(["evaluate", str(run), *OPTIONS]) == 0
    forget()
    assert main(["train", "--resume", str(run), "--iterations", "2", "--json"]) == 0
    assert capsys.readouterr().err == ""
    assert logged(run) == logged(tmp_path / "whole")
    settings, _ = RunFolder(run).settings(RunConfig)
    (source,) = settings.sources
    assert (settings.family, source.path) == ("point_of_mine.py:own-point@mine", "../../point_of_mine.py")
    assert source.given == str(tmp_path / "b" / "point_of_mine.py")
    assert RunFolder(run).signed()


def test_two_checkouts_compare_and_what_changed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained_in(project(tmp_path / "a"), tmp_path / "a" / "r")
    trained_in(project(tmp_path / "b"), tmp_path / "b" / "r", seed=1)
    runs = [tmp_path / "a" / "r", tmp_path / "b" / "r"]
    capsys.readouterr()
    curve = metarl.evaluate(runs, **SMALLEST)
    assert curve.arrays()["returns"].shape[1] == 2
    assert capsys.readouterr().err == ""
    forget()
    # Run b's own file is as it was: that it is not the one taken is said.
    (tmp_path / "a" / "point_of_mine.py").write_text(FAMILY + "# changed\n")
    metarl.evaluate(runs, **SMALLEST)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"metarl: {tmp_path}/a/point_of_mine.py (family) has changed since {run} was trained with it" for run in runs
    ]


def test_a_run_of_somebody_else_executes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained_in(project(tmp_path / "a"), tmp_path / "a" / "r")
    run = unsigned(tmp_path / "a" / "r")
    trap = tmp_path / "trapped"
    file = tmp_path / "a" / "point_of_mine.py"
    file.write_text(f"from pathlib import Path\nPath({str(trap)!r}).write_text('x')\n{FAMILY}")
    asks = rf"was not made by you on this machine.*would execute {file} \(family, sha256 \w{{12}}\)\..*--trust"
    ways: list[Any] = [metarl.load, metarl.resume, lambda folder: metarl.evaluate([folder], **SMALLEST)]
    for use in ways:
        with pytest.raises(UserError, match=asks):
            use(run)
    for command in (["evaluate", str(run)], ["train", "--resume", str(run)], ["render", str(run)]):
        assert main(command) == 2
        assert "--trust" in capsys.readouterr().err
    assert main(["play", "--runs", str(run)]) == 2
    assert not trap.exists()
    # The advice works, and says that the file is not what it was.
    assert metarl.load(run, trust=True).family.full_name == "own-point@mine"
    assert "has changed since" in capsys.readouterr().err
    assert trap.exists()
    forget()
    assert main(["evaluate", str(run), *OPTIONS, "--trust"]) == 0
    forget()
    # Who resumes a run by it makes it one's own.
    assert main(["train", "--resume", str(run), "--iterations", "2", "--json", "--trust"]) == 0
    forget()
    assert metarl.load(run).iteration == 2


def test_a_copied_signature_does_not_speak_for_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stranger has the config.yaml of a run of the user's, and sends it with a file of the same name."""
    run = trained_in(project(tmp_path / "a"), tmp_path / "a" / "r").folder
    own = shutil.copytree(tmp_path / "a", tmp_path / "own")
    (tmp_path / "a").rename(tmp_path / "b")
    run = tmp_path / "b" / "r"
    canary = tmp_path / "canary"
    (tmp_path / "b" / "point_of_mine.py").write_text(
        f"from pathlib import Path\nPath({str(canary)!r}).touch()\n{FAMILY}"
    )
    metarl.train("maml-trpo", "point-nav", out=tmp_path / "plain", **{**SMALL, "iterations": 1})
    commands: list[list[str]] = [
        ["evaluate", str(run)],
        ["evaluate", str(tmp_path / "plain"), str(run)],
        ["evaluate", str(tmp_path / "plain"), "--oracle", str(run)],
        ["train", "--resume", str(run), "--checkpoint", "previous"],
        ["render", str(run)],
        ["play", "--runs", str(run)],
    ]
    capsys.readouterr()
    for command in commands:
        assert main(command) == 2
        assert "has changed, or other files are beside it. If you trust" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path / "b")
    for use in (metarl.load, metarl.resume, metarl.evaluate):
        with pytest.raises(UserError, match=r"would execute .*/b/point_of_mine\.py \(family, sha256"):
            use("r")
    assert not canary.exists()
    # The file that the user names; and the one that the run was made with, where it is found.
    assert metarl.load("r", source=own / "point_of_mine.py").iteration == 1
    forget()
    own.rename(tmp_path / "a")
    assert metarl.load("r").settings.sources[0].given == str(tmp_path / "a" / "point_of_mine.py")
    assert not canary.exists()


def test_other_names_in_a_copied_config_execute_nothing_else(tmp_path: Path) -> None:
    """What is executed is what `sources` lists and the signature covers, whatever else the config says."""
    trained_in(project(tmp_path / "a"), tmp_path / "a" / "r")
    canary = tmp_path / "canary"
    (tmp_path / "a" / "r" / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()\n{FAMILY}")
    stored = yaml.safe_load((tmp_path / "a" / "r" / "config.yaml").read_text())["run"]
    (mine,) = stored["sources"]
    names = ["evil.py:own-point@mine", "r/evil.py:own-point@mine", "evil:own-point", "os:system", "x:y:own-point@mine"]
    for family in names:
        edit(tmp_path / "a" / "r", run={**stored, "family": family})
        with pytest.raises(UserError):
            metarl.load(tmp_path / "a" / "r")
        forget()
    evil = {**mine, "path": "evil.py", "given": str(tmp_path / "a" / "r" / "evil.py")}
    for entries in ([mine, evil], [evil, mine], [evil], [mine, {**evil, "role": "make"}], [{**evil, "role": "x"}]):
        edit(tmp_path / "a" / "r", run={**stored, "sources": entries})
        with pytest.raises(UserError, match=r"was not made by you|no file for it"):
            metarl.load(tmp_path / "a" / "r")
    assert not canary.exists()


@pytest.mark.parametrize("entry", [{"path": "evil.py"}, {"given": "/evil.py"}, {"module": "evil"}, {"sha256": ""}])
def test_a_list_that_was_changed_counts_as_somebody_elses(tmp_path: Path, entry: dict[str, str]) -> None:
    trained_in(project(tmp_path / "a"), tmp_path / "r")
    content = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())
    content["run"]["sources"][0] |= entry
    edit(tmp_path / "r", run=content["run"])
    with pytest.raises(UserError, match="was not made by you"):
        metarl.load(tmp_path / "r")


def test_a_run_of_format_1_asks_once(tmp_path: Path) -> None:
    """Its family has the absolute path of its file, and nothing is signed."""
    file, run = project(tmp_path / "a"), tmp_path / "maml-trpo"
    with zipfile.ZipFile(ROOT / "tests" / "run" / "runs-of-format-1.zip") as old:
        old.extractall(tmp_path)
    stored = yaml.safe_load((run / "config.yaml").read_text())["run"]
    edit(run, run={**stored, "family": f"{file}:own-point@mine"})
    last = run / "checkpoints" / "last.pt"
    header, payload = _SEAL.open(last)
    header["family"] = f"{file}:own-point@mine"
    last.write_bytes(_SEAL.close(json.dumps(header).encode() + b"\n" + payload))
    with pytest.raises(UserError, match=rf"would execute {file} \(family, sha256 .*--trust"):
        metarl.load(run)
    assert metarl.load(run, trust=True).settings.family == "point_of_mine.py:own-point@mine"
    forget()
    metarl.resume(run, trust=True)
    forget()
    assert metarl.load(run).iteration == 3


def test_a_file_that_is_nowhere_is_named_and_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project(tmp_path / "a")
    trained_in(file, tmp_path / "r")
    moved = tmp_path / "other_name.py"
    file.rename(moved)
    with pytest.raises(UserError, match=rf"needs point_of_mine\.py \(family\), which is not at {file}.*--source FILE"):
        metarl.load(tmp_path / "r")
    assert main(["evaluate", str(tmp_path / "r"), *OPTIONS, "--source", str(moved)]) == 0
    sys.modules.pop("other_name")
    forget()
    metarl.resume(tmp_path / "r", iterations=2, source=moved)
    sys.modules.pop("other_name")
    forget()
    assert metarl.load(tmp_path / "r").settings.sources[0].given == str(moved)
    assert "changed" not in capsys.readouterr().err
    sys.modules.pop("other_name")
    forget()
    with pytest.raises(UserError, match="registers no family 'own-point' when it is imported"):
        metarl.load(tmp_path / "r", source=project(tmp_path / "c", "x = 1\n"))


def test_source_is_for_own_families(tmp_path: Path) -> None:
    metarl.train("maml-trpo", "point-nav", out=tmp_path / "r", **{**SMALL, "iterations": 0})
    with pytest.raises(UserError, match=r"whose family point-nav@maml17 is metarl's own\. Leave it out"):
        metarl.load(tmp_path / "r", source="mine.py")
    assert yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())["signature"] == ""


def test_a_file_without_an_entry_is_never_guessed(tmp_path: Path) -> None:
    trained_in(project(tmp_path / "a"), tmp_path / "a" / "r")
    content = yaml.safe_load((tmp_path / "a" / "r" / "config.yaml").read_text())
    edit(tmp_path / "a" / "r", run={**content["run"], "sources": []})
    with pytest.raises(UserError, match=r"no file for it in `sources`\. Use --source FILE"):
        metarl.load(tmp_path / "a" / "r", trust=True)


def test_a_module_in_a_package_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path / "a" / "points_of_mine").rename(tmp_path / "a" / "points_of_mine" / "families.py")
    (tmp_path / "a" / "points_of_mine" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path / "a")
    metarl.train("maml-trpo", "points_of_mine.families:own-point", out="r", **{**SMALL, "iterations": 0})
    forget()
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.chdir(tmp_path / "b")
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path / "a")]
    run = metarl.load("r")
    assert run.settings.sources[0].module == "points_of_mine.families"
    assert run.settings.sources[0].given == str(tmp_path / "b" / "points_of_mine" / "families.py")
    forget()
    shutil.move("r", tmp_path / "r")
    with pytest.raises(
        UserError, match=r"would execute .*/families\.py \(family, module points_of_mine\.families, sha"
    ):
        metarl.load(unsigned(tmp_path / "r"))


def trained_in_package(file: Path, monkeypatch: pytest.MonkeyPatch, family: str = "points_of_mine.families") -> Path:
    """Train from the folder of a package, then be a session elsewhere that does not know it."""
    top = file.parents[1]
    monkeypatch.chdir(top)
    metarl.train("maml-trpo", f"{family}:own-point", out="r", **{**SMALL, "iterations": 0})
    forget()
    (top.parent / "elsewhere").mkdir()
    monkeypatch.chdir(top.parent / "elsewhere")
    sys.path[:] = [entry for entry in sys.path if entry != str(top)]
    child.FOLDERS.clear()
    return top / "r"


@pytest.mark.parametrize(
    ("family", "moved"),
    [
        ("points_of_mine.families", "a"),
        pytest.param("points_of_mine.families", "b", marks=pytest.mark.slow),
        pytest.param("points_of_mine/families.py", "b", marks=pytest.mark.slow),
    ],
)
def test_a_run_of_a_package_is_evaluated_from_any_folder(
    family: str, moved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_in_package(package(tmp_path / "a"), monkeypatch, family)
    (tmp_path / "a").rename(tmp_path / moved)
    installed = list(sys.path)
    capsys.readouterr()
    assert main(["evaluate", f"../{moved}/r", *OPTIONS]) == 0
    # Behind what is installed, and once.
    assert sys.path.index(str(tmp_path / moved)) > max(map(sys.path.index, installed))
    assert child.FOLDERS.count(str(tmp_path / moved)) == 1
    forget()
    assert main(["evaluate", f"../{moved}/r", *OPTIONS]) == 0
    assert child.FOLDERS.count(str(tmp_path / moved)) == 1
    assert capsys.readouterr().err == ""


def test_a_package_that_is_nowhere_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained_in_package(package(tmp_path / "a"), monkeypatch).rename(tmp_path / "r")
    (tmp_path / "a").rename(tmp_path / "b")
    capsys.readouterr()
    assert main(["evaluate", str(run), *OPTIONS]) == 2
    assert "No module named 'points_of_mine'. Mend it, or its path, or say where the file is with --source FILE" in (
        capsys.readouterr().err
    )
    file = tmp_path / "b" / "points_of_mine" / "families.py"
    assert main(["evaluate", str(run), *OPTIONS, "--source", str(file)]) == 0
    forget()
    # Another file does not help where something else is missing.
    file.write_text("import not_installed\n")
    (tmp_path / "b").rename(tmp_path / "a")
    with pytest.raises(UserError, match=r"No module named 'not_installed'\. Mend it, or its path$"):
        metarl.load(run)


def test_nothing_is_put_on_the_path_by_the_word_of_a_strangers_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unsigned(trained_in_package(package(tmp_path / "a"), monkeypatch))
    other = project(tmp_path / "c", PACKAGED)
    before = list(sys.path)
    with pytest.raises(UserError, match="was not made by you"):
        metarl.load(run)
    assert (sys.path, child.FOLDERS) == (before, [])
    # The file that the user names is executed, and may say more; where the environment is, only the run says.
    with pytest.raises(UserError, match="No module named 'points_of_mine'"):
        metarl.evaluate(run, source=other, **SMALLEST)
    assert str(tmp_path / "a") not in [*sys.path, *child.FOLDERS]
    forget()
    assert metarl.evaluate(run, source=other, trust=True, **SMALLEST).agents == ["maml-trpo"]
    assert str(tmp_path / "a") in child.FOLDERS


def test_of_two_packages_of_one_name_that_of_the_run_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained_in_package(package(tmp_path / "a"), monkeypatch)
    other = package(tmp_path / "b")
    monkeypatch.chdir(tmp_path / "b")
    capsys.readouterr()
    metarl.load(run)
    assert capsys.readouterr().err == ""
    forget()
    other.write_text(PACKAGED + "# changed\n")
    metarl.load(run)
    assert capsys.readouterr().err == ""
    assert str(tmp_path / "b") not in sys.path
    forget()
    # Where the user says that Python is to look there, one is asked.
    sys.path.insert(0, str(tmp_path / "b"))
    with pytest.raises(UserError, match=rf"would execute {other} \(family, module .*has changed.*add --trust"):
        metarl.load(run)
    metarl.load(run, trust=True)
    assert capsys.readouterr().err == f"metarl: {other} (family) has changed since {run} was trained with it\n"


def test_a_family_that_is_there_already_needs_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project(tmp_path / "a")
    trained_in(file, tmp_path / "r")
    file.unlink()
    register(PointNav(name="own-point", variant="mine", horizon=7))
    assert metarl.load(unsigned(tmp_path / "r")).family.horizon == 7
    assert "was trained on own-point@mine of point_of_mine.py; the one taken is" in capsys.readouterr().err


def test_a_family_of_a_session_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family = PointNav(name="own-point", variant="mine", horizon=7)
    register(family)
    run = metarl.train("maml-trpo", family, out=tmp_path / "r", **{**SMALL, "iterations": 1})
    assert metarl.evaluate(run, **SMALLEST).agents == ["maml-trpo"]
    assert metarl.load(tmp_path / "r").family is family
    forget()
    with pytest.raises(UserError, match=r"own-point@mine, which was defined in .*Define and register it here first.*"):
        metarl.load(tmp_path / "r")
    capsys.readouterr()
    # Both cures.
    register(PointNav(name="own-point", variant="mine", horizon=7))
    assert metarl.load(tmp_path / "r").iteration == 1
    forget()
    file = project(tmp_path / "a")
    assert main(["train", "--resume", str(tmp_path / "r"), "--iterations", "2", "--source", str(file), "--json"]) == 0
    forget()
    assert metarl.load(tmp_path / "r").iteration == 2
    assert capsys.readouterr().err == ""


def test_a_program_that_registers_only_when_it_is_run_says_so(tmp_path: Path) -> None:
    family = PointNav(name="own-point", variant="mine", horizon=7)
    register(family)
    metarl.train("maml-trpo", family, out=tmp_path / "r", **{**SMALL, "iterations": 0})
    forget()
    imports, call = FAMILY.split("\n\n")
    file = project(tmp_path / "a", f'{imports}\n\nif __name__ == "__main__":\n    {call}')
    with pytest.raises(
        UserError,
        match=r"point_of_mine\.py registers no family 'own-point' when it is imported\. Call register in it, ",
    ):
        metarl.load(tmp_path / "r", source=file)
    forget()
    # The advice works.
    file.write_text(FAMILY)
    assert metarl.load(tmp_path / "r", source=file).family.horizon == 7
