"""A notebook, run by a kernel of its own: a training shows its progress, a curve its picture."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

import metarl
from metarl.errors import UserError

CELLS = (
    "import metarl\n"
    "run = metarl.train('maml-trpo', 'point-nav', iterations=2, tasks=2, episodes=2, threads=1, out='run')",
    "curve = metarl.evaluate(run, tasks=4, steps=1, threads=1)\ncurve",
    "print(curve)",
    "metarl.families()",
    """\
import gymnasium, numpy as np
from metarl.envs import GymnasiumFamily, Parameter, register

class Bell(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = options["task"]["goal"]
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), -abs(float(action[0]) - self.goal), False, False, {}

goal = Parameter(name="goal", unit="", description="", scale="uniform", low=-1.0, high=1.0)
register(GymnasiumFamily(name="bell", make=Bell, horizon=5, parameters=(goal,)))
bell = metarl.train("maml-trpo", "bell", iterations=1, tasks=2, episodes=2, threads=1, out="bell")
print(metarl.evaluate("bell", tasks=2, steps=1, threads=1).arrays()["returns"].shape, bell.iteration)
""",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def outputs(folder: Path) -> list[list[Any]]:
    """What every cell showed."""
    spec = folder / "share" / "jupyter" / "kernels" / "here"
    spec.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "here"}))
    root = str(Path(__file__).resolve().parents[2])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "share" / "jupyter"))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))))
        NotebookClient(
            notebook, timeout=240, kernel_name="here", resources={"metadata": {"path": str(folder)}}
        ).execute()
    return [cell.outputs for cell in notebook.cells]


def test_a_training_shows_one_line_that_moves(outputs: list[list[Any]]) -> None:
    line, end = (shown["data"]["text/html"] for shown in outputs[0])
    assert "<b>maml-trpo point-nav@maml17</b>" in line
    assert '<progress value="2" max="2">' in line
    assert "return" in line
    assert "Trained 2 iterations" in end


def test_a_curve_shows_its_picture_and_prints_its_table(outputs: list[list[Any]]) -> None:
    (shown,) = outputs[1]
    with Image.open(io.BytesIO(base64.b64decode(shown["data"]["image/png"]))) as picture:
        assert picture.width > 600
    (printed,) = outputs[2]
    assert printed["output_type"] == "stream"
    assert "4 held-out tasks: return after adaptation" in printed["text"]
    assert printed["text"].rstrip() == shown["data"]["text/plain"].rstrip()


def test_families_are_a_table(outputs: list[list[Any]]) -> None:
    (shown,) = outputs[3]
    assert "half-cheetah-vel" in shown["data"]["text/plain"]
    assert len(shown["data"]["text/plain"].splitlines()[0]) < 120


def test_an_environment_of_a_cell_is_trained_on(outputs: list[list[Any]], folder: Path) -> None:
    assert outputs[4][-1]["text"] == "(2, 1, 2) 1\n"
    # Whoever comes later is told where it was.
    with pytest.raises(
        UserError, match=r"bell@v1, which was defined in a session \(a notebook or a prompt\).*--source"
    ):
        metarl.load(folder / "bell")
