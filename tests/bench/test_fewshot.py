"""The few-shot benchmark at tiny sizes: ours and the loop beside it do the same work."""

import json
from dataclasses import replace

import pytest
import torch

from metarl.bench import fewshot, limits
from metarl.bench.episode_sampling import SHAPE, by_item, made_pictures, moved_bytes, ours
from metarl.bench.fewshot import COLUMNS, FewShotConfig, run_fewshot
from metarl.bench.limits import operations
from metarl.bench.meta_updates import (
    OMNIGLOT,
    PLAIN,
    PROBLEMS,
    Absent,
    Problem,
    contender,
    reptile_step_bytes,
    task_loop,
    usable,
)
from metarl.errors import UserError

TINY = {
    "sinusoid": replace(PROBLEMS["sinusoid"], executors=("grouped",)),
    "omniglot-1": replace(OMNIGLOT, item_shape=(1, 16, 16), tasks=2, width=4, executors=("loop", "grouped")),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    for name, problem in TINY.items():
        monkeypatch.setitem(PROBLEMS, name, problem)
    monkeypatch.setitem(limits.SIDES, "cpu", 64)
    monkeypatch.setattr(limits, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(fewshot, "LEAST_SECONDS", 0.0)


def test_cases_report_speed_and_share(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    cases = ("sinusoid", "omniglot-1", "reptile", "sampling")
    report = run_fewshot(FewShotConfig(cases=cases, rounds=1, memory=False, threads=1))
    assert list(report["cases"]) == list(cases)
    for case, contenders, share in (
        ("sinusoid", {PLAIN, "grouped"}, "share_of_product"),
        ("omniglot-1", {PLAIN, "loop", "grouped"}, "share_of_product"),
        ("reptile", {PLAIN, "stacked"}, "share_of_copy"),
        ("sampling", {PLAIN, "ours"}, "share_of_copy"),
    ):
        rows = report["cases"][case]["rows"]
        assert contenders <= set(rows)
        assert rows[PLAIN]["speedup"] == 1.0
        assert all(row["ms"] > 0.0 and row[share] > 0.0 for row in rows.values())
        assert all(set(row) == {"ms", "speedup", share} for row in rows.values())
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert PROBLEMS["sinusoid"].title in shown
    for column in ("ms", "speed-up", "of product", "of copy"):
        assert COLUMNS[column] in shown
    assert COLUMNS["peak MB"] not in shown
    json.dumps(report)


@pytest.mark.parametrize("problem", TINY.values(), ids=list(TINY))
def test_our_loop_does_what_the_plain_one_does(problem: Problem):
    problem = replace(problem, tasks=2)
    own = contender(problem, "loop")
    # The first call also measures the memory of one task.
    own()
    assert operations(task_loop(problem)) == operations(own) > 0


def test_sampling_gives_as_many_images_either_way():
    dataset = made_pictures()
    plain, own = by_item(dataset, 2)(), ours(dataset, 2)()
    assert [images.shape for images, _ in plain] == [(10, 1, 28, 28)] * 2
    assert own.support.x.shape == own.query_x.shape == (2, 5, 1, 28, 28)
    assert own.query_x.dtype == plain[0][0].dtype == torch.float32
    images = 2 * SHAPE.way * (SHAPE.shot + SHAPE.query)
    assert moved_bytes(dataset, 2) == images * 28 * 28 * 5


def test_an_adam_step_moves_eight_arrays():
    parameters = (1 * 40 + 40) + (40 * 40 + 40) + (40 * 1 + 1)
    assert reptile_step_bytes() == 8 * 4 * parameters * 25


def test_peak_memory_is_what_updates_add():
    threads = torch.get_num_threads()
    assert fewshot._peak_here("sinusoid", PLAIN, threads) >= 0.0


def test_titles_say_what_a_problem_is():
    assert PROBLEMS["omniglot-5"].title == "MAML on 28x28: Conv4-64, 32 tasks, 5-way 1-shot, 5 steps, second order"
    assert TINY["sinusoid"].title == "MAML on sinusoids: MLP 40-40, 25 tasks, 10-shot, 1 step, second order"


def test_packages_that_do_not_work_are_left_out():
    with pytest.raises(Absent, match=r"no_such_package \(ModuleNotFoundError"):
        usable("no_such_package", lambda package: lambda: None)
    with pytest.raises(UserError, match="at least one"):
        FewShotConfig(cases=())
