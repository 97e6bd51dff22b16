"""A command whose present folder is a stranger's run folder takes nothing from there but the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

import metarl
from metarl.cli.main import main
from metarl.envs.external import child, pool
from metarl.envs.external.pool import Job
from metarl.evaluation.plot import Picture, draw_pictures, to_png
from tests.helpers.tiny_trainings import SMALL

NAMES = (
    "yaml",
    "torch",
    "numpy",
    "matplotlib",
    "PIL",
    "tensorboard",
    "IPython",
    "sitecustomize",
    "usercustomize",
    "json",
)


def test_evaluate_of_the_present_folder_imports_nothing_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = metarl.train("maml-trpo", "point-nav", out=tmp_path / "r", **{**SMALL, "iterations": 1}).folder
    for name in NAMES:
        (run / f"{name}.py").write_text(f"open({str(tmp_path / name)!r}, 'w').close()\nraise SystemExit('taken')\n")
    monkeypatch.chdir(run)
    before = list(sys.path)
    options = ["--tasks", "3", "--episodes", "2", "--threads", "1", "--steps", "1", "--no-film", "--json"]
    assert main(["evaluate", ".", *options]) == 0
    assert sys.path == before
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    # A fresh process, which has imported nothing yet.
    command = [sys.executable, "-m", "metarl", "play", "--family", "no-such"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("metarl: error: unknown family 'no-such'")
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_workers_look_into_the_present_folder_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    mine = str(tmp_path / "mine")
    monkeypatch.setattr(child, "FOLDERS", [mine])
    for python in (None, sys.executable):
        job = Job(family="x", hello={}, folder=str(tmp_path), python=python, timeout=1.0)
        folders = pool._folders(job)
        assert str(tmp_path) not in folders["path"]
        assert (folders["path"][0], folders["last"]) == (mine, [str(tmp_path)])
    # One's own files are there.
    monkeypatch.setattr(child, "FOLDERS", [str(tmp_path)])
    assert pool._folders(job)["path"][0] == str(tmp_path)


def test_a_style_of_the_present_folder_has_no_latex_run(monkeypatch: pytest.MonkeyPatch) -> None:

    def run(*arguments: object, **options: object) -> None:
        raise AssertionError("LaTeX was run")

    monkeypatch.setattr("matplotlib.texmanager.TexManager._run_checked_subprocess", run)
    picture = Picture(title="a", subtitle="b", x_label="c", y_label="d", curves={"e": [(0, 1.0, 0.0, 2.0)]})
    plain = to_png(draw_pictures([picture]))
    with matplotlib.rc_context({"text.usetex": True, "text.latex.preamble": r"\input{/etc/passwd}"}):
        assert to_png(draw_pictures([picture])) == plain
