"""Families by name: those of this package, and those that a user's file or module registers."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from metarl.cli.main import main
from metarl.envs import get, register, registry
from metarl.envs.external import child
from metarl.envs.families import FILES
from metarl.envs.families.point_nav import PointNav
from metarl.errors import UserError
from tests.helpers.adapted import FILE

pytestmark = pytest.mark.usefixtures("own_registry")

FAMILY_FILE = """\
from metarl.envs import GymnasiumFamily, register
from metarl.space import Parameter

goal = Parameter(name="goal", unit="m", description="where to go", scale="disc", radius=1.0)
for variant in ("plain", "success"):
    register(
        GymnasiumFamily(
            name="own-reach",
            variant=variant,
            make="reach_of_mine:Reach",
            parameters=(goal,),
            horizon=6,
            success_key="success" if variant == "success" else None,
        )
    )
"""
SMALL = ["--tasks", "3", "--episodes", "2", "--threads", "1"]


@pytest.fixture
def family_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A family file with its environment beside it, as a user has them; nothing of them stays imported."""
    (tmp_path / "reach_of_mine.py").write_text(Path(FILE).read_text())
    file = tmp_path / "families_of_mine.py"
    file.write_text(FAMILY_FILE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(child, "FOLDERS", [])
    yield file
    sys.modules.pop(file.stem, None)


def forget(file: Path) -> None:
    """Be a process that has not imported the file yet."""
    sys.modules.pop(file.stem)
    registry._FAMILIES.pop("own-reach")
    registry._ORIGINS.clear()
    del gymnasium.registry["metarl/OwnReach-v0"]


def test_train_resume_and_evaluate_from_anywhere(
    family_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train = ["train", "maml-trpo", "--family", f"{family_file.name}:own-reach@success", *SMALL, "--hidden", "8"]
    assert main([*train, "--iterations", "1", "--out", "run"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    forget(family_file)
    assert main(["train", "--resume", "../run", "--iterations", "2"]) == 0
    forget(family_file)
    capsys.readouterr()
    assert main(["evaluate", "../run", "--tasks", "3", "--episodes", "2", "--threads", "1", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["family"] == "own-reach@success"
    assert len(summary["agents"][0]["points"]) == 4


def test_own_variants_of_a_family_that_exists_are_found_again(tmp_path: Path) -> None:
    file = tmp_path / "variant_of_mine.py"
    file.write_text(
        "from metarl.envs import register\nfrom metarl.envs.families.point_nav import PointNav\n\n"
        "register(PointNav(variant='mine', horizon=7))\n"
    )
    family = get(f"{file}:point-nav@mine+switch")
    assert family.horizon == 7
    assert registry.address(family) == f"{file}:point-nav@mine+switch"
    assert get(registry.address(family)) is family
    assert registry.address(get("point-nav")) == "point-nav@maml17"


def test_list_shows_it(family_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", f"{family_file}:own-reach", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    shown = found["families"][0] if "families" in found else found
    assert "own-reach@plain" in json.dumps(shown)
    assert '"observation_size": 2' in json.dumps(shown)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.py:own-reach", ["there is no file", "nowhere.py"]),
        ("no.such.module:own-reach", ["importing no.such.module failed", "No module named"]),
        ("{file}:own-raech", ["registers no family 'own-raech' when it is imported", "Did you mean 'own-reach'?"]),
        ("{file}:own-reach@v9", ["no variant 'v9'", "success"]),
    ],
)
def test_a_source_that_does_not_have_it(
    name: str, says: list[str], family_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = name.format(file=family_file)
    assert main(["train", "maml-trpo", "--family", given, "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    for text in says:
        assert text in message


def test_a_file_called_like_a_module_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("")
    with pytest.raises(UserError, match="another module is called json here"):
        get(f"{tmp_path}/json.py:own-reach")


def test_a_file_that_breaks_is_not_half_imported(tmp_path: Path) -> None:
    broken = tmp_path / "broken_family.py"
    broken.write_text("1 / 0\n")
    for _ in range(2):
        with pytest.raises(UserError, match=r"importing .*broken_family.py failed, ZeroDivisionError"):
            get(f"{broken}:own-reach")


def test_first_variant_is_the_default() -> None:
    assert get("half-cheetah-vel").full_name == "half-cheetah-vel@v5"
    assert get("half-cheetah-dir").full_name == "half-cheetah-dir@v5"
    assert get("ant-dir").full_name == "ant-dir@v5"
    assert get("point-nav").full_name == "point-nav@maml17"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half-cheeta-vel", r"unknown family 'half-cheeta-vel'.*Did you mean 'half-cheetah-vel'\?.*point-nav"),
        ("ant-dir@maml18", r"ant-dir has no variant 'maml18'.*Did you mean 'maml17'\? Choose from: v5, maml17"),
    ],
)
def test_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get(name)


def test_refuses_a_second_family_of_a_name() -> None:
    with pytest.raises(UserError, match="got a second family ant-dir@v5"):
        register(get("ant-dir"))


def test_every_file_of_a_family_stands_in_the_table() -> None:
    found = {file.stem for file in (Path(registry.__file__).parent / "families").glob("*.py")}
    assert sorted(FILES) == sorted(found - {"__init__"})


@pytest.mark.parametrize("given", [Path("family.py"), None, PointNav])
def test_what_is_no_family_is_refused(given: Any) -> None:
    with pytest.raises(UserError, match=r"where a family is needed: give its name, such as 'ant-dir', or a Family"):
        inspect.unwrap(registry.resolve)(given)


def test_a_file_that_goes_to_another_folder_moves_no_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "wanders.py"
    file.write_text(
        "import os\nfrom metarl.envs import register\nfrom metarl.envs.families.point_nav import PointNav\n"
        "os.chdir('elsewhere')\nregister(PointNav(name='wanders', variant='own'))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert get("wanders.py:wanders").name == "wanders"
    assert Path.cwd() == tmp_path
