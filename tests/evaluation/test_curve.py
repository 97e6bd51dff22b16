from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch.utils.tensorboard import SummaryWriter

from metarl.agents import config_class, make
from metarl.envs import get, make_worlds
from metarl.errors import UserError
from metarl.evaluation.curve import Curve, Entry, Evaluation, adaptation_curve
from metarl.evaluation.plot import draw
from metarl.evaluation.report import MOST_ROWS, table, write
from metarl.evaluation.summary import summarise, task_kind
from metarl.learning.rollout import collect
from metarl.run.progress import figures, rounded
from metarl.seeding import Streams
from metarl.types import MemoryPolicy, MetaAgent, Tasks
from tests.helpers.toys import seeded

FAMILY = get("point-nav")
TASKS = FAMILY.space.sample(4, "test", seeded(0))


def untrained() -> MetaAgent:
    config = config_class("random")(hidden=(8,), inner_rate=0.5)
    return make("random", config, FAMILY.spec(), Streams(0), torch.device("cpu"))


def remembering(episodes: int = 3) -> MetaAgent:
    """Return an untrained agent with a memory."""
    config = config_class("rl2")(episodes=episodes, width=4)
    return make("rl2", config, FAMILY.spec(), Streams(0), torch.device("cpu"))


def entry(agent: str, *seeds: Sequence[Sequence[float]], tasks: Tasks = TASKS, pools: bool = True) -> Entry:
    """Return an entry with made-up returns: for every seed, for every point, one return per task."""
    each = 5 if pools else 1
    curves = tuple(
        Curve(
            parallel=5,
            pools=pools,
            episodes=tuple(range(0, each * len(points), each)),
            returns=torch.tensor(points, dtype=torch.float64),
            tasks=tasks,
            failures=0,
        )
        for points in seeds
    )
    names = tuple(f"runs/{agent}{i}" for i in range(len(seeds)))
    return Entry(agent=agent, curves=curves, runs=names, seeds=tuple(range(len(seeds))))


def made_up(oracle: Entry | None = None, random: Entry | None = None) -> Evaluation:
    agent = entry("maml-trpo", [[-10.0, -20.0, -30.0, -40.0], [-4.0, -5.0, -6.0, -45.0], [-1.0, -2.0, -3.0, -4.0]])
    return Evaluation(family=FAMILY.full_name, split="test", seed=0, entries=(agent,), oracle=oracle, random=random)


def test_curve_is_the_learner_stepped_by_hand() -> None:
    agent, worlds = untrained(), make_worlds(FAMILY, 12, threads=1)
    curve = adaptation_curve(agent, worlds, TASKS, steps=2, episodes=3, generator=seeded(1))

    generator, learner, expected = seeded(1), agent.start(TASKS), []
    for _ in range(3):
        episodes = collect(worlds, learner.policy, TASKS, 3, generator)
        expected.append(episodes.rewards.sum(2).double().mean(1))
        learner = learner.learn(episodes)
    assert curve.episodes == (0, 3, 6)
    assert torch.equal(curve.returns, torch.stack(expected))
    assert not torch.equal(curve.returns[0], curve.returns[1])


def test_episodes_of_a_memory_are_those_of_trials() -> None:
    agent, worlds = remembering(), make_worlds(FAMILY, 12, threads=1)
    curve = adaptation_curve(agent, worlds, TASKS, steps=2, episodes=3, generator=seeded(1))
    assert curve.episodes == (0, 1, 2)
    assert (curve.parallel, curve.pools) == (3, False)

    # Three trials of every task: one policy, which remembers, in worlds that keep their tasks.
    generator, policy, expected = seeded(1), agent.start(TASKS).policy, []
    assert isinstance(policy, MemoryPolicy)
    worlds.set_tasks(TASKS.repeat(3))
    for _ in range(3):
        observation, total = worlds.reset(generator), torch.zeros(12, dtype=torch.float64)
        policy.begin_episode()
        for _ in range(FAMILY.horizon):
            step = worlds.step(policy.act(observation, generator))
            policy.see(step.reward, step.terminated | step.truncated)
            observation, total = step.observation, total + step.reward
        expected.append(total.reshape(4, 3).mean(1))
    torch.testing.assert_close(curve.returns, torch.stack(expected), rtol=0.0, atol=1e-4)


def test_a_switch_counts_the_steps_of_all_episodes_of_a_memory() -> None:
    # An episode is 100 steps.
    family = get("point-nav+switch=120..150")
    tasks, worlds = family.space.sample(4, "test", seeded(0)), make_worlds(family, 8, threads=1)
    for agent, part in ((remembering(2), "later_goal"), (untrained(), "goal")):
        adaptation_curve(agent, worlds, tasks, steps=1, episodes=2, generator=seeded(1))
        assert worlds.present is not None
        assert torch.equal(worlds.present["goal"], tasks.repeat(2)[part]), agent.name


@pytest.mark.parametrize(("steps", "episodes"), [(-1, 2), (1, 0)])
def test_impossible_lengths_are_refused(steps: int, episodes: int) -> None:
    with pytest.raises(UserError, match="0 or more steps"):
        adaptation_curve(
            untrained(), make_worlds(FAMILY, 4), TASKS, steps=steps, episodes=episodes, generator=seeded(0)
        )


def test_returns_are_told_with_three_digits() -> None:
    assert rounded(0.5, 0.81249) == ["0.500", "0.812"]
    assert rounded(-4.0, -5.126, 1.0) == ["-4.00", "-5.13", "1.00"]
    assert rounded(78.66, 9.999) == ["78.7", "10.0"]
    assert rounded(-234.56) == ["-234.6"]
    assert rounded(1234.5, 0.1) == ["1234", "0"]
    assert rounded(math.nan, 2.0) == ["nan", "2.00"]
    assert figures({"return/pre": 0.4961, "return/post": 0.8123}) == "return 0.496 -> 0.812"


def test_mean_and_iqm_by_hand() -> None:
    points = summarise(made_up())["agents"][0]["points"]
    assert [point["mean"] for point in points] == [-25.0, -15.0, -2.5]
    # Four values: one is cut at each end.
    assert [point["iqm"] for point in points] == [-25.0, -5.5, -2.5]
    assert all(point["lower"] < point["mean"] < point["upper"] for point in points)
    assert [point["gap_closed"] for point in points] == [None, None, None]


def test_gain_is_told_task_by_task() -> None:
    # Tasks that differ by hundreds, each of which gains from 9 to 11: the spread of the tasks is not that of the gain.
    returns = [[-100.0, -200.0, -300.0, -400.0], [-90.0, -191.0, -289.0, -390.0]]
    evaluation = Evaluation(family=FAMILY.full_name, split="test", seed=0, entries=(entry("maml-trpo", returns),))
    first, second = summarise(evaluation)["agents"][0]["points"]
    assert first["gain"] is None
    assert second["gain"] == 10.0
    assert 9.0 <= second["gain_lower"] < 10.0 < second["gain_upper"] <= 11.0
    assert second["upper"] - second["lower"] > 100.0


def test_gap_closed_by_hand() -> None:
    random = entry("random", [[-50.0, -50.0, -50.0, -50.0]])
    oracle = entry("oracle", [[-1.0, -1.0, 1.0, 1.0]])
    points = summarise(made_up(random=random, oracle=oracle))["agents"][0]["points"]
    # (agent + 50) / (0 + 50)
    assert [point["gap_closed"] for point in points] == pytest.approx([0.5, 0.7, 0.95])
    assert all(point["gap_lower"] < point["gap_closed"] < point["gap_upper"] for point in points)


def test_gap_is_drawn_with_the_same_tasks_for_all() -> None:
    # Every task's gap is closed by half: whichever tasks are drawn, so is their mean's.
    random, oracle = [[-8.0, -40.0, -2.0, -100.0]], [[0.0, 0.0, 0.0, 0.0]]
    agent = entry("maml-trpo", [[-4.0, -20.0, -1.0, -50.0]])
    evaluation = Evaluation(
        family=FAMILY.full_name,
        split="test",
        seed=0,
        entries=(agent,),
        random=entry("random", random),
        oracle=entry("oracle", oracle),
    )
    point = summarise(evaluation)["agents"][0]["points"][0]
    assert [point["gap_lower"], point["gap_closed"], point["gap_upper"]] == pytest.approx([0.5, 0.5, 0.5])


def test_no_gap_without_an_oracle_above_random() -> None:
    same = [[-5.0, -5.0, -5.0, -5.0]]
    summary = summarise(made_up(random=entry("random", same), oracle=entry("oracle", same)))
    assert "not above the random policy" in summary["gap_note"]
    assert all(point["gap_closed"] is None for point in summary["agents"][0]["points"])


def test_seeds_are_pooled() -> None:
    agent = entry("maml-trpo", [[-1.0, -1.0, -1.0, -1.0]], [[-3.0, -3.0, -3.0, -3.0]])
    evaluation = Evaluation(family=FAMILY.full_name, split="test", seed=0, entries=(agent,))
    described = summarise(evaluation)["agents"][0]
    assert described["training_seeds"] == [0, 1]
    # Seeds are strata: each has no spread of its own.
    assert [described["points"][0][key] for key in ("lower", "mean", "upper")] == [-2.0, -2.0, -2.0]


def test_success_is_told_beside_the_return(tmp_path: Path) -> None:
    agent = entry("maml-trpo", [[-10.0, -20.0, -30.0, -40.0], [-1.0, -2.0, -3.0, -4.0]])
    rates = torch.tensor([[0.0, 0.0, 0.2, 0.0], [1.0, 1.0, 0.6, 0.8]], dtype=torch.float64)
    curve = replace(agent.curves[0], success=rates)
    evaluation = Evaluation(family=FAMILY.full_name, split="test", seed=0, entries=(replace(agent, curves=(curve,)),))
    summary = summarise(evaluation)
    points = summary["agents"][0]["points"]
    assert [point["success"] for point in points] == pytest.approx([0.05, 0.85])
    assert points[1]["success_lower"] < 0.85 < points[1]["success_upper"]
    column = next(column for column in table(summary).columns if str(column.header).startswith("success"))
    assert str(list(column.cells)[1]).startswith("85.0% ")
    write(evaluation, summary, tmp_path)
    # With the gap beside it the table still fits 80 columns, uncut.
    worst = replace(curve, returns=curve.returns * 100.0 - 1000.0)
    long = entry("rl2", [[-3999.0, -20.0, -1300.0, -40.0]] * 9, pools=False)
    many = rates[:1].expand(9, 4)
    low = replace(entry("random", [[-5000.0] * 4]).curves[0], success=rates[:1])
    wide = Evaluation(
        family=FAMILY.full_name,
        split="test",
        seed=0,
        entries=(replace(agent, curves=(worst,)), replace(long, curves=(replace(long.curves[0], success=many),))),
        random=Entry(agent="random", curves=(low,), runs=(), seeds=(0,)),
        oracle=Entry(agent="oracle", curves=(replace(low, returns=low.returns / 5000.0),), runs=(), seeds=(0,)),
    )
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(table(summarise(wide)))
    assert "\u2026" not in console.export_text()
    with (tmp_path / "adaptation.csv").open(newline="") as file:
        by_task = [float(row["success"]) for row in csv.DictReader(file)]
    assert by_task == [0.0, 1.0, 0.0, 1.0, 0.2, 0.6, 0.0, 0.8]
    read = EventAccumulator(str(tmp_path / "maml-trpo")).Reload()
    assert [scalar.value for scalar in read.Scalars("adaptation/success")] == pytest.approx([0.05, 0.85])


def test_other_tasks_are_refused() -> None:
    others = FAMILY.space.sample(4, "test", seeded(9))
    with pytest.raises(ValueError, match="same tasks"):
        made_up(oracle=entry("oracle", [[0.0, 0.0, 0.0, 0.0]], tasks=others))


def test_files_hold_what_was_measured(tmp_path: Path) -> None:
    evaluation = made_up(random=entry("random", [[-50.0, -51.0, -52.0, -53.0]]))
    summary = summarise(evaluation)
    write(evaluation, summary, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"

    assert json.loads((folder / "adaptation.json").read_text()) == summary
    with (folder / "adaptation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 4 + 4
    goal = TASKS["goal"][3].tolist()
    assert rows[10] == {
        "agent": "maml-trpo",
        "training_seed": "0",
        "task": "3",
        "goal[0]": str(goal[0]),
        "goal[1]": str(goal[1]),
        "step": "1",
        "episodes": "5",
        "return": "-45.0",
    }
    with Image.open(folder / "adaptation.png") as picture:
        picture.load()
        assert picture.width > 800
        # A curve, bands and text: not an empty page.
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
        assert colours is not None
        assert len(colours) > 100


def both() -> Evaluation:
    """Return an evaluation of two agents, of which one has 2 episodes of experience where the other has 10."""
    rl2 = entry("rl2", [[-9.0, -8.0, -7.0, -6.0], [-3.0, -4.0, -5.0, -6.0], [-1.0, -2.0, -1.0, -2.0]], pools=False)
    return replace(made_up(), entries=(rl2, *made_up().entries))


def test_tensorboard_shows_all_agents_in_one_chart(tmp_path: Path) -> None:
    for training in (tmp_path, tmp_path / "multitask"):
        with SummaryWriter(str(training)) as writer:
            writer.add_scalar("return/post", 1.0, 7)
    before = set(tmp_path.rglob("events.*"))
    # Neither a second evaluation nor one of other agents leaves anything of those before it; training's events stay.
    others = replace(made_up(), entries=(entry("multitask", [[0.0] * 4]), entry("random", [[0.0] * 4])))
    for evaluation in (others, both(), both()):
        summary = summarise(evaluation)
        write(evaluation, summary, tmp_path)
    events = set(tmp_path.rglob("events.*")) - before
    assert before < set(tmp_path.rglob("events.*"))
    assert sorted(path.parent.name for path in events) == ["maml-trpo", "rl2"]
    assert not (tmp_path / "random").exists()

    for agent, steps in zip(summary["agents"], ([0, 1, 2], [0, 5, 10]), strict=True):
        read = EventAccumulator(str(tmp_path / agent["agent"])).Reload()
        for key in ("mean", "lower", "upper", "iqm"):
            scalars = read.Scalars(f"adaptation/{key}")
            assert [scalar.step for scalar in scalars] == steps
            assert [scalar.value for scalar in scalars] == pytest.approx([point[key] for point in agent["points"]])
        stored = read.Tensors("custom_scalars__config__")[0].tensor_proto
        layout: Any = cast(Any, layout_pb2).Layout.FromString(stored.string_val[0])
        margin = layout.category[0].chart[0].margin.series[0]
        assert (margin.value, margin.lower, margin.upper) == ("adaptation/mean", "adaptation/lower", "adaptation/upper")


def test_the_total_of_a_trial_is_told() -> None:
    rl2, maml = summarise(both())["agents"]
    # Sums of the tasks: -13, -14, -13, -14.
    assert rl2["total"]["mean"] == -13.5
    assert -14.0 <= rl2["total"]["lower"] < -13.5 < rl2["total"]["upper"] <= -13.0
    assert (rl2["pools"], rl2["parallel"]) == (False, 5)
    assert maml["total"] is None
    two = entry("rl2", [[-9.0] * 4, [-3.0] * 4], pools=False)
    assert summarise(replace(made_up(), entries=(two,)))["agents"][0]["total"] is None
    rows = [str(cell) for cell in table(summarise(both())).columns[0].cells]
    assert rows == ["rl2", "", "", "total", "maml-trpo", "", ""]
    assert str(list(table(summarise(both())).columns[2].cells)[3]) == "0-2"


def test_of_long_curves_the_table_shows_some_points() -> None:
    points = [[0.5 + n / 500.0] * 4 for n in range(100)]
    evaluation = replace(made_up(), entries=(entry("rl2", points, pools=False),))
    shown = table(summarise(evaluation))
    steps = [str(cell) for cell in shown.columns[1].cells]
    assert steps == ["0", "1", "3", "6", "13", "26", "51", "99", ""]
    means = [str(cell).split()[0] for cell in shown.columns[3].cells]
    assert means == ["0.500", "0.502", "0.506", "0.512", "0.526", "0.552", "0.602", "0.698", "59.9"]
    assert "some points" in str(shown.caption)
    assert len(summarise(evaluation)["agents"][0]["points"]) == 100
    for count in range(1, 30):
        some = replace(evaluation, entries=(entry("rl2", points[:count], pools=False),))
        steps = [str(cell) for cell in table(summarise(some)).columns[1].cells if cell]
        assert len(steps) <= MOST_ROWS
        assert (steps[0], steps[-1]) == ("0", str(count - 1))


def test_the_axis_shows_few_episodes_beside_many() -> None:
    (axes,) = draw(summarise(made_up())).axes
    assert (axes.get_xscale(), list(axes.get_xticks())) == ("linear", [0, 5, 10])
    assert axes.get_title(loc="left") == f"maml-trpo adapts to tasks of {FAMILY.full_name}"

    rl2 = entry("rl2", [[-9.0, -8.0, -7.0, -6.0], [-3.0, -4.0, -5.0, -6.0]], pools=False)
    (axes,) = draw(summarise(replace(made_up(), entries=(*made_up().entries, rl2)))).axes
    assert (axes.get_xscale(), sorted(axes.get_xticks())) == ("symlog", [0, 1, 5, 10])
    assert axes.get_title(loc="left") == f"maml-trpo and rl2 adapt to tasks of {FAMILY.full_name}"
    place = axes.transData.transform([(x, 0.0) for x in (0, 1, 5, 10)])[:, 0]
    widths = (place[1:] - place[:-1]) / (place[-1] - place[0])
    assert (widths > 0.1).all()
    # Ticks that would run into one another are left out.
    long = entry("rl2", [[0.0] * 4] * 10, pools=False)
    maml = entry("maml-trpo", [[0.0] * 4] * 20)
    (axes,) = draw(summarise(replace(made_up(), entries=(maml, long)))).axes
    ticks = sorted(axes.get_xticks())
    assert (ticks[:2], ticks[-1]) == ([0, 1], 95)
    place = axes.transData.transform([(x, 0.0) for x in ticks])[:, 0]
    assert (place[1:] - place[:-1]).min() > 0.04 * (place[-1] - place[0])


def test_table_has_a_row_for_every_point() -> None:
    evaluation = made_up(random=entry("random", [[-50.0] * 4]), oracle=entry("oracle", [[0.0] * 4]))
    shown = table(summarise(evaluation))
    assert shown.row_count == 3 + 1 + 1
    assert str(list(shown.columns[-1].cells)[2]).startswith("95.0% ")


def test_a_curve_of_one_point_can_be_drawn(tmp_path: Path) -> None:
    evaluation = Evaluation(
        family=FAMILY.full_name, split="ood", seed=0, entries=(entry("maml-trpo", [[-1.0, -2.0, -3.0, -4.0]]),)
    )
    write(evaluation, summarise(evaluation), tmp_path)
    assert (tmp_path / "adaptation.png").stat().st_size > 1000


def test_tasks_are_called_held_out_only_where_they_are() -> None:
    assert task_kind("test", coincide=False) == "held-out tasks"
    assert "held-out" not in task_kind("test", coincide=True)
    assert "coincide" in task_kind("test", coincide=True)
    assert task_kind("ood", coincide=True) == "out-of-distribution tasks"
