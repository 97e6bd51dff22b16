"""What tests of agents share: an agent that a test registers is gone after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from metarl.agents import AGENTS


@pytest.fixture(autouse=True)
def table_as_before() -> Iterator[None]:
    before = dict(AGENTS)
    yield
    AGENTS.clear()
    AGENTS.update(before)
