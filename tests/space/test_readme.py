"""What stands in metarl/space/README.md runs as it is written."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.readme import block

README = "metarl/space/README.md"


def test_example(capsys: pytest.CaptureFixture[str]) -> None:
    code = block(README, "ParameterSpace(")
    names: dict[str, Any] = {}
    exec(compile(code, README, "exec"), names)
    shown = capsys.readouterr().out.splitlines()
    assert f'"{shown[1]}"' in code
    assert names["space"].contains(names["tasks"], "test").all()
    assert names["tasks"]["leg"].unique().tolist() == [0.0, 1.0]
