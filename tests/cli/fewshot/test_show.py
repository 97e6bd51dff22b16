from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from metarl.cli.main import main
from tests.helpers.commands import refused
from tests.helpers.tiny_fewshot import pictures


def test_show_draws_a_contact_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = pictures(tmp_path / "images")
    out = tmp_path / "new" / "sheet.png"
    arguments = ["fewshot", "show", "arrays", "--data-root", str(images), "--split", "train", "--out", str(out)]
    assert main([*arguments, "--classes", "3", "--items", "4"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as image:
        assert image.height > 3 * 48
    assert "exists already" in refused(arguments, capsys)
