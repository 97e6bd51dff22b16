"""A user's own functions: read from arrays, callables and files, in any units, or refused in a line."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from metarl.errors import UserError
from metarl.fewshot import FewShotRun, config_class, from_arrays, from_functions, load, predict, score, train
from metarl.fewshot.data import load as load_data
from metarl.fewshot.data.function_sets import FunctionArrays
from metarl.fewshot.episodes import EpisodeShape, Source
from metarl.fewshot.parts.optimiser import OptimiserConfig

SHAPE = EpisodeShape(way=5, shot=4, query=3)
RUN = FewShotRun(data="mine", learner="maml", shot=5, query=5, threads=1, hidden=(40,), validation=0, log_every=100)


def lines(unit: float = 1.0, offset: float = 0.0, functions: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Return points of waves y = a sin(2 x), x [functions, 12, 1] and y likewise, in other units."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-1.0, 1.0, (functions, 12, 1))
    y = generator.uniform(-2.0, 2.0, (functions, 1, 1)) * np.sin(2.0 * x)
    return x * unit + offset, y * unit + offset


def draw(generator: np.random.Generator, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw points of a parabola of two inputs, in volts and kelvin."""
    x = generator.normal(size=(points, 2)) * [0.001, 20.0] + [0.0, 300.0]
    return x, 1e6 * generator.uniform(1.0, 2.0) * x[:, 0] ** 2


def trained(folder: Path, data: Source, iterations: int, learner: str = "maml") -> Any:
    maml = {"tasks": 8, "inner_steps": 2, "inner_rate": 0.1, "optimiser": OptimiserConfig(learning_rate=2e-2)}
    config = config_class(learner)(**(maml if learner == "maml" else {}))
    quiet = Console(file=io.StringIO())
    return train(folder, replace(RUN, learner=learner), data, config, iterations=iterations, console=quiet)


def test_episodes_are_points_of_one_function_scaled_by_the_training_functions() -> None:
    x, y = lines(unit=1000.0, offset=1e6)
    data = from_functions(x, y)
    assert isinstance(data, FunctionArrays)
    assert (data.item_shape, data.outputs) == ((1,), 1)
    described = data.describe()
    assert described["splits"]["train"] == {"functions": 38, "points": 38 * 12}
    names = data.splits["train"].points.names
    kept = x[[int(name) for name in names]]
    assert described["scaling"]["x_mean"] == pytest.approx([kept.mean()])
    assert described["scaling"]["x_deviation"] == pytest.approx([kept.std()])
    found = data.episodes("train", range(5), SHAPE, 3)
    assert (found.support.way, found.support.x.shape, found.query_y.shape) == (0, (5, 4, 1), (5, 3, 1))
    for task in range(5):
        points = torch.cat((found.support.x[task], found.query_x[task]))
        values = torch.cat((found.support.y[task], found.query_y[task]))
        assert len(points.unique()) == 7
        raw = points[:, 0].double() * kept.std() + kept.mean()
        (owner,) = [i for i in range(60) if all(np.abs(x[i] - float(v)).min() < 0.05 for v in raw)]
        assert str(owner) in names
        # In float64, though networks get float32.
        at = [int(np.abs(x[owner] - float(v)).argmin()) for v in raw]
        torch.testing.assert_close(data.scaling.values(values).numpy(), y[owner, at], rtol=0.0, atol=1e-3)
    # Of its number, split and seed alone.
    again = data.episodes("train", [3], SHAPE, 3)
    assert torch.equal(again.support.x[0], found.support.x[3])
    assert not torch.equal(data.episodes("train", [3], SHAPE, 4).support.x, again.support.x)
    splits = [set(part.points.names) for part in data.splits.values()]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 60


def test_other_units_change_nothing_but_the_unit_of_the_error(tmp_path: Path) -> None:
    errors = []
    for unit in (1.0, 1000.0):
        x, y = lines(unit, offset=7.0 * unit)
        data = from_functions(x, y)
        assert isinstance(data, FunctionArrays)
        untrained, done = (trained(tmp_path / f"{unit}-{n}", data, n) for n in (0, 70))
        before, after = (score(of.learner, data, episodes=100) for of in (untrained, done))
        # 0.30 and 0.10, in squared units.
        assert after.upper < 0.75 * before.lower
        errors.append((after.estimate, done, data))
        # What predict answers is in the units too: the mean error of the held-out functions.
        held_out = [int(name) for name in data.splits["test"].points.names]
        values = [predict(done.learner, data, x[at, :5], y[at, :5], x[at, 5:]) for at in held_out]
        assert values[0].shape == (7, 1)
        found = [((v.numpy() - y[at, 5:]) ** 2).mean() for at, v in zip(held_out, values, strict=True)]
        assert np.mean(found) == pytest.approx(after.estimate, rel=0.6)
        # Lists of numbers will do, where there is one input.
        at = held_out[0]
        listed = predict(done.learner, data, x[at, :5, 0].tolist(), y[at, :5, 0].tolist(), x[at, 5:, 0].tolist())
        torch.testing.assert_close(listed, values[0])
    assert errors[1][0] == pytest.approx(1e6 * errors[0][0], rel=0.02)
    with pytest.raises(UserError, match=r"\[points, 1\]"):
        predict(errors[0][1].learner, errors[0][2], [[1.0, 2.0]], [1.0], [[1.0, 2.0]])
    assert predict(errors[0][1].learner, errors[0][2], [1.0], [1.0], []).shape == (0, 1)
    with pytest.raises(UserError, match="Got 2 points in x and 1 in y"):
        predict(errors[0][1].learner, errors[0][2], [1.0, 2.0], [1.0], [1.0])
    with pytest.raises(UserError, match="queries with values that are NaN"):
        predict(errors[0][1].learner, errors[0][2], [1.0], [1.0], [np.nan])


def test_a_run_of_it_is_loaded_with_its_data_alone(tmp_path: Path) -> None:
    data = from_functions(*lines())
    trained(tmp_path / "run", data, 2)
    assert load(tmp_path / "run", source=data).iteration == 2
    with pytest.raises(UserError, match="fingerprint"):
        load(tmp_path / "run", source=from_functions(*lines(2.0)))


def test_a_callable_draws_a_new_function_for_every_episode(tmp_path: Path) -> None:
    data = from_functions(draw)
    assert (data.item_shape, data.outputs) == ((2,), 1)
    assert data.scaling.x_mean[1] == pytest.approx(300.0, abs=3.0)
    assert data.scaling.x_deviation == pytest.approx((0.001, 20.0), rel=0.1)
    found = data.episodes("train", range(3), SHAPE, 0)
    assert torch.equal(found.support.y[2], data.episodes("train", [2], SHAPE, 0).support.y[0])
    assert not torch.equal(found.support.y, data.episodes("test", range(3), SHAPE, 0).support.y)
    assert "64 functions" in data.describe()["fingerprint_of"]
    assert data.describe()["fingerprint"] == from_functions(draw).describe()["fingerprint"]
    other = from_functions(lambda generator, points: (draw(generator, points)[0], draw(generator, points)[1] + 1.0))
    assert data.describe()["fingerprint"] != other.describe()["fingerprint"]
    run = trained(tmp_path / "run", data, 2)
    x, y = draw(np.random.default_rng(9), 8)
    assert predict(run.learner, data, x[:4], y[:4], x[4:]).shape == (4, 1)


def test_functions_in_a_list_may_have_different_numbers_of_points() -> None:
    x, y = lines()
    ragged = (
        [part[: 7 + number % 3] for number, part in enumerate(x)],
        [part[: 7 + number % 3, 0] for number, part in enumerate(y)],
    )
    data = from_functions(*ragged, splits={"train": range(40), "test": range(40, 60)})
    assert data.episodes("test", range(9), SHAPE, 0).query_x.shape == (9, 3, 1)
    with pytest.raises(UserError, match=r"15 points of a function, and function 0 of functions \(train\) has 7\. Ask"):
        data.episodes("train", [0], EpisodeShape(shot=10, query=5), 0)


def test_reptile_says_before_a_folder_is_made_that_its_training_tasks_are_too_large(tmp_path: Path) -> None:
    x, y = lines()
    data = from_functions(x[:, :9], y[:, :9])
    run = replace(RUN, learner="reptile", query=4)
    with pytest.raises(UserError, match=r"has 9\..*Training has 10 items: --train-shot\."):
        train(tmp_path / "run", run, data, iterations=1)
    assert not (tmp_path / "run").exists()
    small = config_class("reptile")(train_shot=9)
    assert train(tmp_path / "run", run, data, small, iterations=1, console=Console(file=io.StringIO())).iteration == 1


def test_learners_of_classes_refuse_functions(tmp_path: Path) -> None:
    for learner in ("proto", "r2d2", "baseline"):
        with pytest.raises(UserError, match=r"this data has none.* maml"):
            trained(tmp_path / learner, from_functions(*lines()), 1, learner)


def test_from_files(tmp_path: Path) -> None:
    x, y = lines()
    folder = tmp_path / "mine"
    folder.mkdir()
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    data = load_data("functions", folder)
    assert data.name == "functions-mine"
    rows = [f"rod {n},{a},{b}" for n in range(60) for a, b in zip(x[n, :, 0], y[n, :, 0], strict=True)]
    table = tmp_path / "rods.csv"
    table.write_text("function,x,y\n" + "\n".join(rows) + "\n")
    read = load_data("functions", table)
    same = [of.episodes("test", range(5), SHAPE, 0).support.x for of in (data, read)]
    torch.testing.assert_close(*same)
    for text, says in (
        ("function,x,z\n1,2,3\n", r"has the columns function, x, z\. Name one 'function'"),
        ("function,x,y\n1,2,\n", r"Row 2 of .*: could not convert"),
        ("function,x,y\n1,2,3,4\n", r"Row 2 of .* has 4 columns, and the first has 3"),
        ("", "is empty. Give a row of column names"),
        ("function,x,y\n1,2,3\n", "Got 1 functions of"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=says):
            load_data("functions", table)
    (folder / "y.npy").unlink()
    with pytest.raises(UserError, match=r"has x\.npy of .* Give x\.npy and y\.npy, or functions\.csv"):
        load_data("functions", folder)
    with pytest.raises(UserError, match="Leave the size out"):
        load_data("functions", folder, size=8)
    ragged = np.empty(2, dtype=object)
    ragged[:] = [x[0], x[1, :4]]
    for name in ("x.npy", "y.npy"):
        np.save(folder / name, ragged)
    with pytest.raises(UserError, match=r"different numbers of points go into functions\.csv"):
        load_data("functions", folder)
    with pytest.raises(UserError, match=r"ends in \.csv"):
        load_data("functions", folder / "x.npy")


def broken(change: Callable[[np.ndarray], Any], which: int = 1) -> tuple[Any, Any]:
    both: list[Any] = list(lines())
    both[which] = change(both[which])
    return both[0], both[1]


def not_finite(y: np.ndarray) -> np.ndarray:
    y[3, 2] = np.inf
    return y


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((lines()[0], None), "Got x without y"),
        (broken(lambda y: y[:5]), "Got x of 60 functions and y of 5"),
        (broken(lambda y: y[:, :5]), "function 0 has 12 points in x and 5 in y"),
        (broken(lambda y: y[..., None]), r"y \(12, 1, 1\)\. Give x \[points, inputs\]"),
        (broken(not_finite), r"function 3 has values that are NaN or infinite; the first is point 2\. Leave"),
        (broken(lambda y: y.astype(str)), "Got y of function 0 with the type <U"),
        (
            broken(lambda y: [*y[:-1], np.zeros((12, 2))]),
            r"function 59 has points of the shape \(1,\) with values \(2,",
        ),
        (broken(lambda y: [[[1.0], [1.0, 2.0]]] * 60), "Got y of function 0 that are no array"),
        (broken(lambda x: {"a": 1}, 0), "Got x of the type dict"),
        (broken(lambda y: np.array(1.0)), "Got y without an axis of functions"),
        (broken(lambda x: x[0, 0], 0), "Got x of function 0 with no axis of points"),
        (([], []), "Got x of no function"),
        ((draw, [1.0]), "A callable draws x and y itself"),
        ((lambda generator: 1, None), r"callable raised TypeError.* It is called as draw\(generator, points\)"),
        ((lambda generator, points: 1, None), r"the callable returned int\. Return x"),
        ((lambda generator, points: ([0.0], [0.0]), None), "the callable gave 1 points. Give as many"),
        ((lambda generator, points: (np.random.default_rng().normal(size=points),) * 2, None), "one state"),
    ],
)
def test_what_does_not_fit_is_refused(given: tuple[Any, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        from_functions(*given)


def test_names_are_one_for_each_function_and_said_in_errors() -> None:
    x, y = lines()
    y[7, 0] = np.nan
    with pytest.raises(UserError, match="function rod 7 has values that are NaN"):
        from_functions(x, y, names=[f"rod {n}" for n in range(60)])
    with pytest.raises(UserError, match="Got 1 names of 60 functions"):
        from_functions(x, y, names=["rod"])


@pytest.mark.parametrize("labels", [np.linspace(0.0, 1.0, 10), np.arange(10.0)])
def test_float_classes_lead_to_functions_or_to_integers(labels: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"from_functions\(x, y\).*classes\.astype\(int\)") as error:
        from_arrays(np.zeros((10, 3)), labels)
    assert "unique" not in str(error.value)
    # Either advice works.
    from_arrays(np.zeros((10, 3)), np.arange(10.0).astype(int))
    from_functions(np.zeros((2, 5, 3)), np.linspace(0.0, 1.0, 10).reshape(2, 5))
