"""Backbones by address: commands find them, in moved projects too, and execute nobody's file unasked."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

from metarl.cli.main import main
from metarl.errors import UserError
from metarl.fewshot import FewShotRun, load
from metarl.fewshot.parts.addresses import given_at, is_address
from metarl.fewshot.parts.own import Given
from tests.helpers.tiny_fewshot import store, train_by_command

CODE = """
from pathlib import Path
from torch import nn

Path("executed").touch()

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU())
"""


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["fewshot", *arguments]) == 2
    return capsys.readouterr().err


def test_a_run_finds_its_file_again_and_asks_before_it_executes_a_strangers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "network.py").write_text(CODE)
    monkeypatch.chdir(project)
    root = store(tmp_path / "data")
    train_by_command(root, Path("run"), "proto", "--backbone", "network.py:make")
    text = (project / "run" / "config.yaml").read_text()
    assert "backbone: network.py:make" in text
    assert "path: ../network.py" in text
    project.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    test = ["--episodes", "5", "--threads", "1"]
    assert main(["fewshot", "evaluate", "moved/run", *test]) == 0
    assert main(["fewshot", "train", "--resume", "moved/run", "--iterations", "5", "--test-episodes", "5"]) == 0
    # Another user, or another machine.
    shutil.copytree(tmp_path / "moved", tmp_path / "theirs")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "executed").unlink()
    for command in (["evaluate", "theirs/run"], ["train", "--resume", "theirs/run"]):
        assert "would execute" in refused(capsys, *command)
    assert not (tmp_path / "executed").exists()
    assert main(["fewshot", "evaluate", "theirs/run", "--trust", *test]) == 0
    assert load("theirs/run", trust=True).learner.setting.backbone.features == 8
    # Without its file, and without a word about it.
    (tmp_path / "theirs" / "network.py").rename(tmp_path / "other.py")
    (tmp_path / "moved" / "network.py").unlink()
    says = refused(capsys, "evaluate", "theirs/run", "--trust")
    assert "needs network.py (backbone)" in says
    assert "--backbone FILE:NAME" in says
    assert main(["fewshot", "evaluate", "theirs/run", "--backbone", "other.py:make", *test]) == 0
    config = tmp_path / "theirs" / "run" / "config.yaml"
    kept, _, rest = config.read_text().partition("  sources:\n")
    config.write_text(kept + "  sources: []\n" + rest[rest.index("  data:") :])
    assert "no file for it in `sources`" in refused(capsys, "evaluate", "theirs/run", "--trust")


def test_a_run_of_a_package_is_evaluated_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    inside = tmp_path / "project" / "networks_of_mine"
    inside.mkdir(parents=True)
    (inside / "__init__.py").touch()
    (inside / "small.py").write_text(CODE)
    monkeypatch.chdir(tmp_path / "project")
    train_by_command(store(tmp_path / "data"), Path("run"), "proto", "--backbone", "networks_of_mine.small:make")
    sys.path.remove(str(tmp_path / "project"))
    for module in ("networks_of_mine", "networks_of_mine.small"):
        monkeypatch.delitem(sys.modules, module)
    (tmp_path / "project").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert load("moved/run").learner.setting.backbone.features == 8


def test_a_signature_is_of_one_name_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else whoever copies it could have anything called that the user's file has, `main` or `os.remove`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "network.py").write_text(CODE + "def main(*given):\n    Path('called').touch()\n    return make()\n")
    root = store(tmp_path / "data")
    train_by_command(root, Path("run"), "proto", "--backbone", "network.py:make")
    config = tmp_path / "run" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("backbone: network.py:make", "backbone: network.py:main"))
    (tmp_path / "executed").unlink()
    items = ["--support", "nowhere", "--query", "nowhere"]
    for command in (["evaluate", "run"], ["train", "--resume", "run"], ["predict", "run", *items]):
        assert "was not made by you" in refused(capsys, *command)
    with pytest.raises(UserError, match="was not made by you"):
        load("run")
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "called").exists()
    config.write_text(text)
    assert load("run").learner.setting.backbone.features == 8


def test_a_copied_signature_does_not_speak_for_another_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    (tmp_path / "mine" / "network.py").write_text(CODE)
    train_by_command(store(tmp_path / "data"), Path("run"), "proto", "--backbone", "network.py:make")
    (tmp_path / "mine").rename(tmp_path / "theirs")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs" / "network.py").write_text("from pathlib import Path\nPath('canary').touch()\n" + CODE)
    for command in (["evaluate", "theirs/run"], ["train", "--resume", "theirs/run"]):
        assert "has changed, or other files are beside it" in refused(capsys, *command)
    with pytest.raises(UserError, match="add --trust"):
        load("theirs/run")
    assert not (tmp_path / "canary").exists()
    assert load("theirs/run", trust=True).learner.setting.backbone.features == 8
    assert (tmp_path / "canary").exists()


def test_an_address_gives_a_module_or_what_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE + "network = make()\n")
    found, source = given_at("mine.py:network")
    assert found == "mine.py:network"
    assert isinstance(found.thing, torch.nn.Module)
    assert (source.role, source.module, source.given) == ("backbone", "", str(tmp_path / "mine.py"))
    named, source = given_at("torch.nn:Flatten")
    assert (named, named.thing, source.module) == ("torch.nn:Flatten", torch.nn.Flatten, "torch.nn")
    assert is_address("mine.py:make")
    assert not is_address("mlp")
    assert not is_address(Given("mine.py:make", None))
    assert FewShotRun(data="mine", learner="proto", backbone="mine.py:make").backbone == "mine.py:make"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("gone.py:make", r"There is no file .*gone\.py"),
        ("mine.py:mak", r"mine\.py has no 'mak'\. Did you mean 'make'"),
        ("broken.py:make", r"Importing broken\.py failed, ZeroDivisionError: division by zero\. Mend it"),
        ("no_such_module:make", r"Importing no_such_module failed, ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_imported(address: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UserError, match=says):
        given_at(address)
