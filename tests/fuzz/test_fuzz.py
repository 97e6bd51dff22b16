"""Fed anything, metarl works or says in one line what is wrong, and changes nothing.

Cases are drawn from one seed: 50 of them in the fast tests, and 5,000 in the slow ones. The counts are printed (`-s`
shows them), and added to the file that METARL_FUZZ names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import arrays, commands, environments, pictures, stored, tables
from tests.fuzz.stock import Stock, make_stock
from tests.helpers.fuzzing import Case, Feeding

KINDS: dict[str, tuple[int, Callable[[Stock], st.SearchStrategy[Case]]]] = {
    "command lines": (80, commands.commands),
    "configs": (70, stored.configs),
    "checkpoints": (80, stored.checkpoints),
    "manifests": (65, stored.manifests),
    "logs": (20, stored.logs),
    "arrays": (40, arrays.arrays),
    "tables": (40, tables.tables),
    "archives": (30, pictures.archives),
    "pictures": (40, pictures.pictures),
    "sounds": (10, tables.sounds),
    "environments": (25, environments.environments),
}
"""Kind -> how many of 500 cases are of it, and what draws them. Of environments there are no more than some 270."""
SHOWN = 12


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return make_stock(tmp_path_factory.mktemp("stock"))


@pytest.fixture
def feeding(tmp_path: Path) -> Feeding:
    return Feeding(tmp_path)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_some_cases_work_or_are_refused_in_a_line(kind: str, stock: Stock, feeding: Feeding) -> None:
    feed(kind, KINDS[kind][0] // 10, stock, feeding)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_many_cases_work_or_are_refused_in_a_line(kind: str, stock: Stock, feeding: Feeding) -> None:
    feed(kind, 10 * KINDS[kind][0], stock, feeding)


def feed(kind: str, count: int, stock: Stock, feeding: Feeding) -> None:
    """Run cases of a kind, all of them even where some are faults."""
    strategy = KINDS[kind][1](stock)

    # Nothing is made smaller: a fault is told with all that makes it again.
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        deadline=None,
    )
    @given(strategy)
    def each(case: Any) -> None:
        feeding.feed(case)

    each()
    text = "\n".join([feeding.summary(kind), *feeding.faults])
    print(f"\n{text}")
    if path := os.environ.get("METARL_FUZZ"):
        with Path(path).open("a") as file:
            file.write(f"{text}\n")
    assert not feeding.faults, f"{len(feeding.faults)} faults:\n" + "\n".join(feeding.faults[:SHOWN])
