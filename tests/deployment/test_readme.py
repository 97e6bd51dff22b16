"""The page on exported policies: its commands and its program run as they stand there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metarl.cli.main import main
from tests.helpers.commands import remember
from tests.helpers.readme import block, commands

PAGE = "metarl/deployment/README.md"


def test_the_commands_and_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    remember(Path("runs/rl2"))
    lines = commands(PAGE)
    assert len(lines) == 2
    for line in lines:
        words = line.split()[1:]
        assert main([*words, "--count", "10"] if "--bench" in words else words) == 0
    capsys.readouterr()
    monkeypatch.syspath_prepend("policy")
    monkeypatch.delitem(sys.modules, "policy", raising=False)
    names: dict = {"observation": [0.0, 0.0], "reward": -0.5}
    exec(compile(block(PAGE, "Policy("), PAGE, "exec"), names)
    assert names["action"].shape == (2,)
    assert names["policy"].raw_action is None
    del sys.modules["policy"]
