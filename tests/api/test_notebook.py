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

CELLS = (
    "import metarl\n"
    "run = metarl.train('maml-trpo', 'point-nav', iterations=2, tasks=2, episodes=2, threads=1, out='run')",
    "curve = metarl.evaluate(run, tasks=4, steps=1, threads=1)\ncurve",
    "print(curve)",
    "metarl.families()",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """What every cell showed."""
    folder = tmp_path_factory.mktemp("notebook")
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
