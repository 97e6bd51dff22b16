from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarl.cli.main import main
from metarl.evaluation.film import Clip, compose
from tests.helpers.commands import refused, remember


def test_render_shows_before_and_after(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "film.gif"
    size = ["--width", "100", "--height", "80"]
    arguments = ["render", str(runs["maml-trpo"]), *size, "--task", '{"goal":[0.3,-0.2]}', "--out", str(out)]
    assert main(arguments) == 0
    assert "before adaptation" in capsys.readouterr().out
    with Image.open(out) as film:
        assert film.width > 200
        film.seek(1)
    before = out.read_bytes()
    assert "exists already" in refused(arguments, capsys)
    assert out.read_bytes() == before


def test_render_shows_the_first_and_the_last_episode_of_a_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # An episode is 100 steps: in the last one the goal is elsewhere.
    run = remember(tmp_path / "run", "--family", "point-nav+switch=150..150", "--episodes", "3")
    size = ["--width", "100", "--height", "80"]
    task = '{"goal": [0.5, 0.5], "later_goal": [-0.5, -0.5], "switch_step": 150}'
    capsys.readouterr()
    assert main(["render", str(run), *size, "--task", task, "--out", str(tmp_path / "film.gif")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^episode 1 of the trial: return -[0-9.]+\nepisode 3 of the trial: return -[0-9.]+$", shown, re.M)
    with Image.open(tmp_path / "film.gif") as film:
        # The goal is green, and above and right in the first picture, below and left in the second.
        image = np.asarray(film.convert("RGB")).astype(int)
    green = (image[:, :, 1] > 2 * image[:, :, 0]) & (image[:, :, 1] > 2 * image[:, :, 2])
    rows, columns = green.nonzero()
    assert np.any(columns < 106)
    assert columns[columns < 106].mean() > 50
    assert columns[columns >= 106].mean() < 156
    assert rows[columns < 106].mean() < rows[columns >= 106].mean() - 10
    message = refused(["render", str(run), "--episodes", "4", "--out", str(tmp_path / "other.gif")], capsys)
    assert "learns from one at a time" in message


def test_a_grid_shows_many_tasks(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--width", "100", "--height", "80", "--rows", "2", "--columns", "2"]
    still, film = tmp_path / "new" / "tasks.png", tmp_path / "tasks.gif"
    assert main(["render", "point-nav", "--grid", *size, "--split", "ood", "--out", str(still)]) == 0
    assert capsys.readouterr().out == f"{still}\n"
    with Image.open(still) as image:
        assert image.width == 206
        cells = [image.crop(box) for box in ((0, 0, 100, 400), (106, 0, 206, 400))]
        # Goals are green.
        assert all(b"\x00\x80\x00" in cell.tobytes() for cell in cells)
        assert cells[0].tobytes() != cells[1].tobytes()
    assert main(["render", str(runs["oracle"]), "--grid", "--video", *size, "--out", str(film)]) == 0
    with Image.open(film) as image:
        first = image.convert("RGB").tobytes()
        image.seek(image.n_frames - 1)  # pyright: ignore[reportAttributeAccessIssue]
        assert image.convert("RGB").tobytes() != first


def test_goals_are_in_the_pictures_of_robots(opengl: bool, tmp_path: Path) -> None:
    if not opengl:
        pytest.skip("no off-screen OpenGL here")
    for name in ("ant-goal", "ant-dir"):
        out = tmp_path / f"{name}.png"
        arguments = ["render", name, "--grid", "--rows", "1", "--columns", "2", "--width", "160", "--height", "120"]
        assert main([*arguments, "--out", str(out)]) == 0
        with Image.open(out) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        red, green, blue = pixels[:, :, 0], pixels[:, :, 1], pixels[:, :, 2]
        bright = (green > 2 * red) & (green > 2 * blue)
        assert np.any(bright[:, :160]), name
        assert np.any(bright[:, 166:]), name


def test_captions_fit() -> None:
    clip = Clip(
        caption=", ".join(f"parameter{i} {i / 7:.3g} m" for i in range(9)),
        frames=(np.zeros((40, 120, 3), dtype=np.uint8),),
        returns=(0.0,),
    )
    image = np.asarray(compose([clip, clip], "a title that is wider than both", 2, 0))
    assert image.shape[1] == 246
    # Nothing is written over the edge of a cell, or over the picture.
    assert (image[:, 120:126][30:] == 255).all()
    assert (image[-46:-6, 1:119][1:-1] == 0).all()


def test_render_says_how_to_get_opengl(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    # PyOpenGL then refuses both off-screen kinds, as it does where their libraries are missing.
    environment["PYOPENGL_PLATFORM"] = "glx"
    command = [sys.executable, "-m", "metarl", "render", "half-cheetah-vel", "--out", str(tmp_path / "x.gif")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "apt-get install libegl1" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("task", ["9" * 5000, '{"goal": ' + "[" * 3000, '{"goal": ' + "9" * 5000 + "}", "{", "[]"])
def test_a_task_that_is_none_is_told_with_an_example(
    task: str, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(["render", str(runs["maml-trpo"]), "--task", task], capsys)
    assert said.startswith(f"metarl: error: Got --task {task[:9]}")
