"""Teacher and student: which loss moves what, when the student learns, and what is the same after a resume."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import metarl
from metarl.agents import config_class, make
from metarl.agents.teacher_student import PpoConfig, RmaConfig, TeacherConfig, TeacherStudent
from metarl.envs import get, make_worlds
from metarl.envs.families.bandit import Bandit
from metarl.envs.families.point_nav import PointNav
from metarl.envs.family import Family
from metarl.errors import UserError
from metarl.evaluation.probe import memories
from metarl.launches import Launches
from metarl.learning import trial_update
from metarl.learning.ppo import Played, ppo_update
from metarl.learning.rollout import collect
from metarl.learning.student import StudentPolicy
from metarl.learning.told import ToldPolicy
from metarl.run.glossary import look_up
from metarl.seeding import Streams
from metarl.types import Metrics
from tests.helpers.recorder import Recorder
from tests.helpers.same import assert_same
from tests.helpers.toys import seeded
from tests.helpers.trials import Ragged

POINT = PointNav(variant="short", horizon=8)
CPU = torch.device("cpu")
FEW: dict[str, Any] = {"tasks": 3, "episodes": 2, "hidden": (6,), "minibatches": 2, "epochs": 2}
TOLD = {**FEW, "latent": 3, "encoder": (5,)}
SMALL: dict[str, Any] = {
    "ppo": PpoConfig(**FEW),
    "teacher": TeacherConfig(**TOLD),
    "rma": RmaConfig(**TOLD, iterations=4, student_part=0.5, student_minibatches=2, rewards=True),
}


def agent_of(name: str, family: Family = POINT, **changed: Any) -> TeacherStudent:
    agent: Any = make(name, replace(SMALL[name], **changed), family.spec(), Streams(0), CPU)
    return agent


def train(agent: TeacherStudent, iterations: int, family: Family = POINT, streams: Streams | None = None) -> Metrics:
    """Train in float32, and return the last figures."""
    worlds, streams = make_worlds(family, agent.config.worlds, threads=1), streams or Streams(1)
    metrics: Metrics = {}
    for _ in range(iterations):
        metrics = agent.train_iteration(worlds, family.space.sample, streams)
    assert all(look_up(tag) for tag in metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    return metrics


def weights(agent: TeacherStudent) -> dict[str, Tensor]:
    assert agent.student is not None
    parts = {"network": agent.network, "student": agent.student}
    return {
        f"{part}.{name}": value.detach().clone()
        for part, net in parts.items()
        for name, value in net.named_parameters()
    }


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Return the parts whose weights are not what they were."""
    changed = [name.split(".") for name in before if not torch.equal(before[name], after[name])]
    return {"student" if first == "student" else second for first, second, *_ in changed}


# -- what moves -------------------------------------------------------------------------------------------------------


def test_each_loss_moves_its_own_encoder_only() -> None:
    agent = agent_of("rma")
    streams, phases = Streams(1), []
    for wanted in (*[{"encoder", "policy", "value", "log_std"}] * 2, {"student"}, {"student"}):
        before = weights(agent)
        phases.append(train(agent, 1, streams=streams)["student/phase"])
        assert moved(before, weights(agent)) == wanted
    assert phases == [1.0, 1.0, 2.0, 2.0]


def test_an_error_of_values_moves_the_critic_alone() -> None:
    network = agent_of("teacher").network
    inputs = torch.randn(2, 3, 2 + POINT.spec().feature_size, generator=seeded())
    distribution, value = network(inputs)
    names = dict(network.named_parameters())
    by_value = torch.autograd.grad(value.square().sum(), list(names.values()), allow_unused=True, retain_graph=True)
    assert {n.split(".")[0] for n, g in zip(names, by_value, strict=True) if g is not None} == {"value"}
    log_probs = distribution.log_prob(torch.zeros(2, 3, 2)).sum()
    by_policy = torch.autograd.grad(log_probs, list(names.values()), allow_unused=True)
    found = {n.split(".")[0] for n, g in zip(names, by_policy, strict=True) if g is not None}
    assert found == {"encoder", "policy", "log_std"}


@pytest.mark.parametrize(("asked", "rows"), [("steps", (48, 1)), ("trials", (6, 8))])
@pytest.mark.parametrize("name", ["ppo", "varibad"])
def test_minibatches_are_filled_with_steps_or_whole_trials(
    name: str, asked: Any, rows: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"tasks": 6, "episodes": 1, "hidden": (6,), "minibatches": 2, "epochs": 2, "minibatches_of": asked}
    agent: Any = make(name, config_class(name)(**given), POINT.spec(), Streams(0), CPU)
    seen = []

    def watched(network: Any, optimiser: Any, played: Played, *rest: Any, **options: Any) -> Any:
        seen.append(tuple(played.mask.shape))
        return ppo_update(network, optimiser, played, *rest, **options)

    monkeypatch.setattr(trial_update, "ppo_update", watched)
    metrics = train(agent, 1)
    assert (seen, metrics["update/steps"]) == ([rows], 4.0)


def test_launched_steps_are_the_same_and_graphs_of_sizes_that_are_gone_are_not_kept() -> None:
    found, family, sizes = [], Ragged(), set()
    for launches in (None, Launches(Recorder(), most=1)):
        agent, streams = agent_of("ppo", family, tasks=6, epochs=4, max_kl=100.0), Streams(1)
        agent.launches = launches
        for _ in range(6):
            train(agent, 1, family, streams)
            if launches is not None:
                (kept,) = launches._kept.values()
                sizes |= set(kept.by_rows._kept)
                assert len(kept.by_rows._kept) <= 2
        found.append(agent.network.state_dict())
    assert_same(*found)
    assert len(sizes) > 2


def test_scales_stand_still_while_the_student_learns() -> None:
    agent = agent_of("rma")
    train(agent, 2)
    kept = copy.deepcopy(agent.inputs.observation.state_dict())
    train(agent, 2)
    assert_same(agent.inputs.observation.state_dict(), kept)


def test_a_critic_that_is_told_nothing_is_ppos() -> None:
    ppo, teacher = agent_of("ppo").network, agent_of("teacher").network
    assert ppo.encoder is None
    assert ppo.value.network.inputs == 2
    assert teacher.value.network.inputs == 2 + POINT.spec().feature_size


# -- what acts --------------------------------------------------------------------------------------------------------


def test_a_student_that_gives_z_takes_the_teachers_actions() -> None:
    agent = agent_of("rma")
    train(agent, 3)
    tasks = POINT.space.sample(1, "test", seeded())
    told = agent._told(tasks)
    teacher = ToldPolicy(agent.network, agent.inputs, told, CPU)
    assert agent.student is not None
    with torch.no_grad():
        agent.student.last.weight.zero_()
        agent.student.last.bias.copy_(agent.network.latent(told)[0])
    student = StudentPolicy(agent.network, agent.student, agent.steps, CPU)
    student.begin_episode()
    for seed in range(3):
        observation = torch.randn(4, 2, generator=seeded(seed))
        ours = student.act(observation, seeded(9))
        assert torch.equal(ours, teacher.act(observation, seeded(9)))
        student.see(torch.zeros(4), torch.zeros(4, dtype=torch.bool))


def test_the_student_plays_what_it_learns_from_and_the_teacher_beside_it_now_and_then() -> None:
    agent = agent_of("rma", iterations=14, student_part=0.9)
    figures = []
    streams = Streams(1)
    for _ in range(14):
        figures.append(train(agent, 1, streams=streams))
    both = [number for number, row in enumerate(figures) if {"return/teacher", "return/post"} <= set(row)]
    assert agent.config.by_ppo == 1
    assert both == [1, 11]
    assert "return/post" not in figures[0]
    assert all("student/error" in row for row in figures[1:])
    steps = agent.config.worlds * POINT.horizon
    assert [round(row["env/steps"] / steps) for row in (figures[1], figures[2])] == [2, 1]


@pytest.mark.parametrize(("iterations", "part", "by_ppo"), [(4, 0.25, 3), (2, 0.1, 1), (2, 0.9, 1), (0, 0.25, 0)])
def test_both_phases_have_their_iterations(iterations: int, part: float, by_ppo: int) -> None:
    assert RmaConfig(iterations=iterations, student_part=part).by_ppo == by_ppo


def test_a_probe_reads_what_the_student_knew_at_the_episodes_end() -> None:
    agent = agent_of("rma")
    train(agent, 3)
    tasks = POINT.space.sample(4, "test", seeded())
    worlds = make_worlds(POINT, 4, threads=1)
    before, after = memories(agent, worlds, tasks, seeded(1))
    assert before.shape == after.shape == (4, 3)
    # Before the first episode the window is empty in all worlds.
    assert bool((before == before[0]).all())
    assert len(after.unique(dim=0)) == 4


# -- every family, and storage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("family", ["bandit", "tabular-mdp", "ragged", "ragged choices"])
def test_it_trains_and_acts_on_every_kind_of_family(name: str, family: str) -> None:
    ragged = {"ragged": Ragged(), "ragged choices": Ragged(discrete=True)}
    found = ragged[family] if family in ragged else get(family)
    agent = agent_of(name, found)
    train(agent, 3, found)
    tasks = found.space.sample(3, "test", seeded())
    learner = agent.start(tasks)
    actions = learner.policy.act(torch.zeros(3, found.observation_size), seeded())
    assert actions.shape == (3, found.action_size)


@pytest.mark.parametrize(("name", "cut"), [("teacher", 1), ("ppo", 2), ("rma", 1), ("rma", 3)])
def test_a_resumed_training_is_the_same_bit_for_bit_in_either_phase(name: str, cut: int) -> None:
    whole, streams = agent_of(name), Streams(1)
    train(whole, cut, streams=streams)
    state, drawn = copy.deepcopy(whole.state_dict()), copy.deepcopy(streams.state_dict())
    expected = train(whole, 4 - cut, streams=streams)
    other, again = agent_of(name), Streams(1)
    other.load_state_dict(state)
    again.load_state_dict(drawn)
    found = train(other, 4 - cut, streams=again)
    assert_same(other.state_dict(), whole.state_dict())
    for tag, value in expected.items():
        if not tag.startswith(("time/", "speed/")):
            assert found[tag] == value, tag


def test_weights_of_another_form_are_refused() -> None:
    state = agent_of("rma").state_dict()
    with pytest.raises(ValueError, match="the stored student_network does not fit"):
        agent_of("rma", rewards=False).load_state_dict(state)
    with pytest.raises(ValueError, match="the stored network does not fit"):
        agent_of("teacher", hidden=(7,)).load_state_dict(agent_of("teacher").state_dict())


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("rma", {"iterations": 1}, r"--iterations 1 for rma.*2 or more"),
        ("rma", {"student_part": 0.0}, r"--student-part 0\.0.*more than"),
        ("rma", {"student_part": 0.95}, r"--student-part 0\.95.*at most"),
        ("rma", {"student_minibatches": 7}, r"--student-minibatches 7 for 6 episodes"),
        ("rma", {"student_epochs": 0}, "--student-epochs 0.*at least 1"),
        ("teacher", {"latent": 0}, "--latent 0.*at least 1"),
        ("teacher", {"encoder": (0,)}, "at least 1 unit"),
        (
            "ppo",
            {"minibatches": 7, "minibatches_of": "trials"},
            r"--minibatches 7 for 6 episodes \(--tasks 3 --episodes 2\)",
        ),
        ("ppo", {"clip": 0.0}, "--clip"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        agent_of(name, **wrong)


def test_tasks_without_parameters_cannot_be_told() -> None:
    spec = replace(POINT.spec(), feature_size=0)
    for name in ("teacher", "rma"):
        with pytest.raises(UserError, match=f"{name} got point-nav.*no parameters to be told. Train ppo"):
            make(name, SMALL[name], spec, Streams(0), CPU)
    make("ppo", SMALL["ppo"], spec, Streams(0), CPU)


def test_a_student_that_could_not_tell_tasks_apart_is_refused(tmp_path: Path) -> None:
    quiet: Any = {"threads": 1, "iterations": 2, "console": Console(quiet=True)} | FEW
    blind = r"^Got bandit@bernoulli-5 for rma, whose tasks differ in what is rewarded alone.*: add --rewards\.$"
    with pytest.raises(UserError, match=blind):
        metarl.train("rma", "bandit", student_minibatches=2, out=tmp_path / "run", **quiet)
    assert list(tmp_path.iterdir()) == []
    metarl.train("rma", "bandit", student_minibatches=2, rewards=True, out=tmp_path / "run", **quiet)
    for family in ("walker2d-rand-params", "half-cheetah-vel+mass", "tabular-mdp"):
        RmaConfig().check_family(get(family).spec())


def test_settings_that_change_nothing_are_named() -> None:
    levers = Ragged(discrete=True).spec()
    assert set(PpoConfig().unused("ppo", levers, CPU)) == {"initial_std", "encode_pictures"}
    assert "activation" in PpoConfig(hidden=()).unused("ppo", levers, CPU)


# -- learning ---------------------------------------------------------------------------------------------------------


def test_each_learns_what_it_can_know() -> None:
    """Of two arms the teacher knows which pays; the student finds out within ten pulls; ppo never does."""
    family = Bandit(rewards="bernoulli", arms=2, horizon=10, source="this test")
    reached = {}
    for name in SMALL:
        options: dict[str, Any] = {"tasks": 25, "episodes": 4, "hidden": (16,), "minibatches": 2, "learning_rate": 1e-2}
        options |= {"iterations": 30, "student_part": 0.5, "rewards": True} if name == "rma" else {"iterations": 15}
        config = config_class(name)(**options)
        agent: Any = make(name, config, family.spec(), Streams(0), CPU)
        worlds, streams = make_worlds(family, config.worlds, threads=1), Streams(1)
        for _ in range(config.iterations):
            agent.train_iteration(worlds, family.space.sample, streams)
        tasks = family.space.sample(100, "test", seeded(1))
        policy = agent.start(tasks).policy
        played = collect(make_worlds(family, 400, threads=1), policy, tasks, 4, seeded(2))
        reached[name] = float(played.returns.mean()), float(played.rewards[..., 7:].mean())
    assert reached["teacher"][0] > 6.2
    assert reached["ppo"][0] == pytest.approx(5.0, abs=0.4)
    # In its last three pulls the student knows.
    assert reached["rma"][1] > 0.58
