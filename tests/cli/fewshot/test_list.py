from __future__ import annotations

import json

import pytest

from metarl.cli.main import main
from metarl.fewshot import DATA, LEARNERS


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fewshot", "list"]) == 0
    shown = capsys.readouterr().out
    for name in (*LEARNERS, *DATA):
        assert name in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert main(["fewshot", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in found["learners"]] == list(LEARNERS)
    assert [entry["name"] for entry in found["data"]] == list(DATA)
    assert found["learners"][0]["options"]["train_way"] == 20
    assert main(["fewshot", "list", "maml"]) == 0
    assert "--inner-rate" in capsys.readouterr().out
    assert main(["fewshot", "list", "omniglot", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variants"]
