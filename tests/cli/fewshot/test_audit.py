from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from metarl.cli.main import main
from tests.helpers.tiny_fewshot import store


def test_audit_tells_what_it_found(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fewshot", "audit", "arrays", "--episodes", "20", "--data-root"]
    assert main([*arguments, str(root)]) == 0
    shown = capsys.readouterr().out
    assert "No leaks." in shown
    assert "item both in support and query" in shown
    assert max(map(len, shown.splitlines())) <= 80
    leaky = store(tmp_path / "leaky")
    items = np.load(leaky / "items.npy")
    items[:] = items[:1]
    np.save(leaky / "items.npy", items)
    assert main([*arguments, str(leaky)]) == 1
    assert "There are leaks." in capsys.readouterr().out
    assert main([*arguments, str(leaky), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
