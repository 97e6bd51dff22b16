"""Pictures of environments in worker processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.api.film import before_and_after
from metarl.cli.main import main
from metarl.envs import make_worlds, register
from metarl.envs.draw import make_painter
from metarl.envs.gym.single import FamilyEnv
from metarl.envs.registry import get
from metarl.errors import UserError
from tests.helpers.adapted import begin, gone, own_envs, processes, reach, trouble
from tests.helpers.toys import seeded as generator

pytestmark = pytest.mark.usefixtures("own_registry")


def drawn(what: str = "", **fields: Any) -> Any:
    return reach(make=own_envs.Drawn, kwargs={"what": what}, **fields)


@pytest.mark.parametrize(
    "fields",
    [{}, {"make": own_envs.drawn_worlds, "set_task": own_envs.set_goals, "vector": True}],
    ids=["single", "vector"],
)
def test_a_picture_shows_its_world_as_it_is_now(fields: dict[str, Any]) -> None:
    worlds, _ = begin(drawn(**fields) if not fields else reach(**fields), 2, 1, pictures=True)
    painter = make_painter(worlds, 40, 20)
    assert [painter(world)[0, 20].tolist() for world in range(2)] == [[0, 0, 7]] * 2
    worlds.step(torch.ones(2, 2))
    picture = painter(1)
    assert picture.shape == (20, 40, 3)
    # Twenty by twenty pixels, in the middle; white beside them.
    assert (picture[:, 10:30] == (1, 0, 7)).all()
    assert (picture[:, :10] == 255).all()
    assert (picture[:, 30:] == 255).all()
    painter.close()


def test_worlds_without_pictures_are_not_drawn() -> None:
    worlds, _ = begin(drawn(), 1)
    with pytest.raises(UserError, match="made without pictures: give pictures=True"):
        make_painter(worlds)(0)
    # Nothing is wrong with them.
    worlds.step(torch.ones(1, 2))


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("none", r"world 0, render, with the task .*: render returned None: a picture is needed, an array of bytes"),
        ("grey", r"render returned array.*: a picture is needed, an array of bytes \[height, width, 3\]"),
        ("gl", r"render, .*: RuntimeError: no display .* pictures need off-screen OpenGL, libegl1 and MUJOCO_GL=egl"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_line(what: str, text: str) -> None:
    worlds, _ = begin(drawn(what), 1, pictures=True)
    pids = processes(worlds)
    with pytest.raises(UserError, match=text):
        make_painter(worlds)(0)
    assert all(map(gone, pids))


def test_an_environment_that_needs_opengl_to_be_made_is_told_about_it() -> None:
    with pytest.raises(
        UserError, match=r"make: RuntimeError: no such robot here .*\. If it draws with MuJoCo: pictures"
    ):
        begin(trouble("make"), 1, pictures=True)
    with pytest.raises(UserError, match=r"make: RuntimeError: no such robot here [^.]*\.py[^.]*$"):
        begin(trouble("make"), 1)


def test_what_takes_no_render_mode_is_made_without() -> None:
    worlds, _ = begin(reach(), 1, pictures=True)
    with pytest.raises(UserError, match="take render_mode='rgb_array', and render return such an array"):
        make_painter(worlds)(0)


def test_films_gymnasium_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from metarl.api.runs import untrained

    family = drawn(horizon=4)
    register(family)
    task = family.space.sample(1, "test", generator())
    agent = untrained(family, 0, torch.device("cpu"))
    (clip,) = before_and_after(agent, family, task, steps=0, episodes=1, seed=0, size=(20, 20))
    assert [int(frame[0, 0, 0]) for frame in clip.frames] == [0, 1, 2, 3, 4]
    env = FamilyEnv("reach", render_mode="rgb_array", width=20, height=20)
    env.reset(seed=0)
    np.testing.assert_array_equal(env.render()[0, 0], (0, 0, 7))  # pyright: ignore[reportOptionalSubscript]
    out = tmp_path / "grid.png"
    assert main(["render", "reach", "--grid", "--rows", "1", "--columns", "2", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.width > 400
    assert make_worlds(get("reach"), 1).family is family
    capsys.readouterr()
