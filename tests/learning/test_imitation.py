"""Who plays tasks without knowing them, and what would have been best: by hand, and by how often it happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metarl.envs import families, get
from metarl.envs.families.point_nav import PointNav
from metarl.errors import UserError
from metarl.learning.imitation import Stranger, best_actions, check_best_is_known
from metarl.learning.trials import Trials
from metarl.ranks import ALONE, Ranks
from metarl.types import EnvSpec
from tests.helpers.toys import normal, seeded

BANDIT = get("bandit").spec()
POINT = PointNav(variant="short", horizon=8)


def stranger(spec: EnvSpec = BANDIT, count: int = 4000, ranks: Ranks = ALONE) -> Stranger:
    family = get("bandit") if spec is BANDIT else POINT
    return Stranger.drawn(spec, count, family.space.sample, seeded(), ranks)


def test_its_trust_is_in_tenths_and_its_chances_are_flat_dirichlet() -> None:
    drawn = stranger()
    tenths = (10.0 * drawn.trust).round().long()
    assert torch.allclose(tenths / 10.0, drawn.trust)
    counts = tenths.flatten().bincount(minlength=11).tolist()
    # 364 each, with a deviation of 18.
    assert len(counts) == 11
    assert all(290 < count < 440 for count in counts)
    chances = drawn.logits.softmax(-1)
    # Mean 1/5; variance 4 / (25 x 6).
    assert float(chances.mean(0).sub(0.2).abs().max()) < 0.01
    assert float(chances.var(0).sub(4.0 / 150.0).abs().max()) < 0.003


def test_it_does_what_another_task_asks_for_as_often_as_it_trusts() -> None:
    drawn = stranger()
    observation, best = torch.zeros(4000, 1), drawn.others["mean"].argmax(1)
    actions = drawn.act(observation, seeded(1))
    assert actions.dtype == observation.dtype
    assert bool((actions.sum(1) == 1.0).all())
    follows = actions.argmax(1) == best
    assert bool(follows[drawn.trust[:, 0] == 1.0].all())
    # c, and a fifth of what is left.
    for tenth in (0.0, 0.5):
        some = drawn.trust[:, 0] == tenth
        assert float(follows[some].float().mean()) == pytest.approx(tenth + 0.2 * (1.0 - tenth), abs=0.1)
    # Else by its own chances, the same ones at each step.
    unlikely = replace(drawn, trust=torch.zeros(4000, 1), logits=torch.log(torch.eye(5).repeat(800, 1)))
    assert torch.equal(unlikely.act(observation, seeded(2)), torch.eye(5).repeat(800, 1))


def test_numbers_are_any_within_the_bounds_or_the_way_to_another_goal() -> None:
    drawn = stranger(POINT.spec(), 1000)
    here = torch.full((1000, 2), 0.05)
    wandering = replace(drawn, trust=torch.zeros(1000, 1)).act(here, seeded(1))
    assert float(wandering.abs().max()) <= 1.0
    assert float(wandering.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(wandering.var()) == pytest.approx(1.0 / 3.0, abs=0.03)
    going = replace(drawn, trust=torch.ones(1000, 1)).act(here, seeded(1))
    wanted = ((drawn.others["goal"] - 0.05) / 0.1).clamp(-1.0, 1.0)
    torch.testing.assert_close(going, wanted.float())


def test_ranks_play_the_rows_of_one_process() -> None:
    whole = stranger(count=6)
    parts = [stranger(count=6, ranks=Ranks(rank=rank, size=2)) for rank in range(2)]
    observation = torch.zeros(6, 1)
    expected = whole.act(observation, seeded(1))
    found = [part.act(observation[:3], seeded(1)) for part in parts]
    assert torch.equal(torch.cat(found), expected)


def test_the_best_is_that_of_each_tasks_own_observations() -> None:
    tasks = POINT.space.from_records([{"goal": [0.0, 0.0]}, {"goal": [0.5, -0.5]}])
    seen = normal(2, 3, 2).float()
    steps, ends = torch.ones(2, 3), torch.zeros(2, 2)
    cut = torch.ones(2, dtype=torch.bool)
    trials = Trials(observations=seen, actions=seen, rewards=steps, ended=steps, mask=steps, final=ends, cut=cut)
    best = best_actions(POINT.spec(), trials, tasks)
    assert best.dtype == torch.float32
    torch.testing.assert_close(best, ((tasks["goal"].float()[:, None] - seen) / 0.1).clamp(-1.0, 1.0))


def test_families_that_do_not_say_it_are_refused_and_those_that_do_are_named() -> None:
    known = [family.spec() for variants in families().values() for family in variants]
    able = {spec.family.partition("@")[0] for spec in known if spec.optimal_action is not None}
    assert able == {"bandit", "point-nav"}
    for name in ("half-cheetah-vel", "tabular-mdp", "point-nav+noise", "bandit+switch=1..3"):
        with pytest.raises(UserError, match=r"^Got \S+ for dpt.*train rl2, or another family \(.*bandit.*\)\.$"):
            check_best_is_known("dpt", get(name).spec(), known)
        with pytest.raises(UserError, match="does not say its optimal action"):
            get(name).optimal_action(torch.zeros(1, 1), get(name).space.sample(1, "train", seeded()))
    with pytest.raises(UserError, match=r"does not say it: train rl2\.$"):
        check_best_is_known("dpt", get("half-cheetah-vel").spec(), ())
    check_best_is_known("dpt", get("bandit@gaussian-10+horizon=20").spec(), ())
