"""A student by hand: what is in its window, when it is emptied, and its steps beside a plain loop in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents.teacher_student import RmaConfig, TeacherStudent
from metarl.envs import make_worlds
from metarl.envs.families.point_nav import PointNav
from metarl.learning.rollout import collect
from metarl.learning.student import Lesson, Steps, StudentPolicy, teach
from metarl.learning.told import ToldPolicy
from metarl.learning.trials import Inputs
from metarl.nets.history import WINDOW, HistoryEncoder, windows
from metarl.seeding import Streams
from metarl.types import EnvSpec
from tests.helpers.lockstep import worlds_together
from tests.helpers.recorder import Recorder
from tests.helpers.toys import DOUBLE, normal, seeded
from tests.helpers.trials import Ragged

CPU = torch.device("cpu")
SMALL = RmaConfig(
    tasks=3, episodes=2, hidden=(5,), latent=2, encoder=(4,), minibatches=2, iterations=3, student_minibatches=2
)


def student_of(family: Any, *, rewards: bool = False) -> tuple[TeacherStudent, StudentPolicy]:
    agent = TeacherStudent(RmaConfig(**{**vars(SMALL), "rewards": rewards}), family.spec(), Streams(0), CPU, name="rma")
    policy: Any = agent.start(family.space.sample(2, "train", seeded())).policy
    return agent, policy


def ended(*flags: bool) -> Tensor:
    return torch.tensor(flags)


def test_the_window_has_what_was_seen_done_and_paid_and_worlds_that_ended_wait() -> None:
    agent, policy = student_of(Ragged(), rewards=True)
    # Shown are (x - 1) / 2, and rewards over 4.
    agent.inputs.observation.update(torch.tensor([[-1.0, -1.0], [3.0, 3.0]]))
    agent.inputs.reward.update(torch.tensor([[4.0], [-4.0]]))
    policy.begin_episode()
    first = policy.act(torch.tensor([[3.0, 1.0], [5.0, 1.0]]), seeded())
    policy.see(torch.tensor([2.0, 100.0]), ended(False, True))
    second = policy.act(torch.tensor([[1.0, -1.0], [7.0, 7.0]]), seeded(1))
    policy.see(torch.tensor([0.0, 1.0]), ended(False, False))
    assert policy.window is not None
    assert policy.window[0, -2:].tolist() == [
        [1.0, 0.0, *first[0].clamp(-1, 1).tolist(), 0.5],
        [0.0, -1.0, *second[0].clamp(-1, 1).tolist(), 0.0],
    ]
    # What comes after an episode's end is not taken in; rewards are cut off at 10 times their size.
    assert policy.window[1, -1].tolist() == [2.0, 0.0, *first[1].clamp(-1, 1).tolist(), 10.0]
    assert float(policy.window[:, :-2].abs().sum()) == 0.0


def test_the_history_is_empty_when_an_episode_begins() -> None:
    family = Ragged()
    _, policy = student_of(family)
    with torch.no_grad():
        policy.student.last.bias.add_(torch.tensor([1.0, -1.0]))
    worlds = make_worlds(family, 2, threads=1)
    tasks = family.space.sample(2, "train", seeded())
    empty = policy.student(torch.zeros(2, WINDOW, 4))
    torch.testing.assert_close(policy.look(torch.zeros(2, 2))[0], empty)
    worlds.set_tasks(tasks)
    collect(worlds, policy, tasks, 1, seeded(1), new_trial=False)
    assert policy.window is not None
    assert float(policy.window.abs().sum()) > 0.0
    policy.begin_episode()
    # It is there to be looked at until the first action.
    assert not torch.equal(policy.look(torch.zeros(2, 2))[0], empty)
    policy.act(torch.zeros(2, 2), seeded())
    torch.testing.assert_close(policy.look(torch.zeros(2, 2))[0], empty)


def test_windows_that_are_learned_from_are_those_that_were_acted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Ragged()
    agent, _ = student_of(family, rewards=True)
    worlds, streams = make_worlds(family, 6, threads=1), Streams(1)
    agent.train_iteration(worlds, family.space.sample, streams)
    acted: list[Tensor] = []
    forward = agent.student.forward  # pyright: ignore[reportOptionalMemberAccess]

    def watched(window: Tensor) -> Tensor:
        if window.dim() == 3:
            acted.append(window.clone())
        return forward(window)

    agent.iteration = agent.config.by_ppo + 1
    monkeypatch.setattr(agent.student, "forward", watched)
    lessons: list[Lesson] = []
    monkeypatch.setattr("metarl.agents.teacher_student.teach", lambda *parts, **_: lessons.append(parts[2]) or {})
    agent.train_iteration(worlds, family.space.sample, streams)
    learned = windows(lessons[0].steps)
    for step, window in enumerate(acted[: learned.shape[1]]):
        real = lessons[0].mask[:, step] > 0
        torch.testing.assert_close(learned[real, step], window[real])
    assert lessons[0].mask.sum(1).unique().numel() > 1


def test_worlds_can_swap_what_they_know_and_go_back() -> None:
    _, policy = student_of(Ragged())
    policy.begin_episode()
    policy.act(torch.randn(2, 2, generator=seeded()), seeded())
    policy.see(torch.zeros(2), ended(False, False))
    other = policy.carried(torch.tensor([1, 0]))
    assert policy.window is not None
    assert other.window is not None
    assert torch.equal(other.window, policy.window.flip(0))
    policy.go_back(policy.keep())
    policy.act(torch.zeros(2, 2), seeded())
    assert float(policy.window.abs().sum()) == 0.0


@pytest.mark.parametrize("teacher", [False, True])
def test_steps_that_are_launched_are_the_same(teacher: bool) -> None:
    family, recorder = PointNav(variant="short", horizon=5), Recorder()
    tasks = family.space.sample(3, "train", seeded())
    found = []
    for captures in (None, recorder):
        agent, _ = student_of(family, rewards=True)
        agent.train_iteration(make_worlds(family, 6, threads=1), family.space.sample, Streams(1))
        worlds = worlds_together(family, 6, captures)
        policy: Any = agent.start(tasks).policy
        if teacher:
            policy = ToldPolicy(agent.network, agent.inputs, agent._told(tasks), CPU)
        played = [collect(worlds, policy, tasks, 2, seeded(seed), watch=False) for seed in range(4)]
        found.append((played, None if teacher else policy.look(torch.zeros(6, 2))[0]))
    (plain, belief), (launched, ours) = found
    assert recorder.captures == 1
    for one, two in zip(plain, launched, strict=True):
        assert torch.equal(one.actions, two.actions)
        assert torch.equal(one.observations, two.observations)
    if belief is not None:
        assert torch.equal(belief, ours)


# -- learning ---------------------------------------------------------------------------------------------------------


def lesson_of(student: HistoryEncoder, *, exact: bool = False) -> Lesson:
    mask = (torch.arange(4) < torch.tensor([[4], [2], [3]])).to(DOUBLE)
    steps = 0.7 * normal(3, 4, 2, seed=1) * mask[..., None]
    wanted = normal(3, 2, seed=2)
    if exact:
        student.last.weight.data.zero_()
        wanted = student.last.bias.detach().expand(3, -1).clone()
    return Lesson(steps=steps, wanted=wanted, mask=mask)


def varied() -> HistoryEncoder:
    student = HistoryEncoder(2, 2, seeded()).double()
    with torch.no_grad():
        for number, value in enumerate(student.parameters()):
            value.copy_(0.3 * normal(*value.shape, seed=number))
    return student


def test_its_steps_are_those_of_a_plain_loop_over_episodes_and_steps() -> None:
    student = varied()
    plain, lesson = copy.deepcopy(student), lesson_of(student)
    figures = teach(student, torch.optim.SGD(student.parameters(), 0.1), lesson, seeded(), epochs=1, minibatches=1)

    total, count, last, error = torch.zeros((), dtype=DOUBLE), 0, 0.0, torch.zeros(())
    for episode in range(3):
        window = [torch.zeros(2, dtype=DOUBLE)] * WINDOW
        for step in range(int(lesson.mask[episode].sum())):
            error = (plain(torch.stack(window)[None])[0] - lesson.wanted[episode]).square().sum()
            total, count, window = total + error, count + 1, [*window[1:], lesson.steps[episode, step]]
        last += float(error.detach())
    (total / count).backward()
    for ours, theirs in zip(student.parameters(), plain.parameters(), strict=True):
        assert theirs.grad is not None
        torch.testing.assert_close(ours.detach(), theirs.detach() - 0.1 * theirs.grad, rtol=1e-10, atol=1e-12)
    variance = float(lesson.wanted.var(0, correction=0).sum())
    assert figures["student/error"] == pytest.approx(float(total.detach()) / count / variance)
    assert figures["student/error_at_end"] == pytest.approx(last / 3 / variance)


def test_a_student_that_gives_z_has_no_loss_and_stays() -> None:
    student = varied()
    lesson = lesson_of(student, exact=True)
    before = copy.deepcopy(student.state_dict())
    assert float(lesson.errors(student, torch.arange(3)).abs().max().detach()) == 0.0
    figures = teach(student, torch.optim.Adam(student.parameters()), lesson, seeded(), epochs=2, minibatches=3)
    # All tasks are one: there is no variance to measure by.
    assert figures == {}
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_a_step_has_the_reward_where_it_is_asked_for() -> None:
    spec = EnvSpec("f", 3, 2, 5, 1, lambda tasks: torch.zeros(1, 1))
    inputs = Inputs(spec)
    for rewards, size in ((False, 5), (True, 6)):
        steps = Steps(inputs=inputs, rewards=rewards)
        assert steps.size(3) == size
        made = steps(torch.zeros(4, 3), torch.full((4, 2), -7.0), torch.ones(4))
        assert made.shape == (4, size)
        assert made[0, 3:5].tolist() == [-1.0, -1.0]
