"""ProMP by hand, and on the point in float64 against plain autograd loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents.promp import Promp, PrompConfig, next_weight
from metarl.envs.families.point_nav import PointNav
from metarl.envs.making import make_worlds
from metarl.errors import NotFiniteError, UserError
from metarl.learning.experience import Batch, inner_loss, log_probs, mean_kl, surrogate
from metarl.learning.inner import Rates, meta_gradients
from metarl.nets.policy import MLP, GaussianPolicy, stack
from metarl.run.glossary import look_up
from metarl.seeding import Streams
from metarl.types import Metrics, Params
from tests.helpers.toys import DOUBLE, assert_params_close, normal, plain_adapt, task

POINT = PointNav(variant="short", horizon=8)
SMALL = PrompConfig(tasks=3, episodes=4, hidden=(4,), output_gain=1.0, inner_rate=0.5, kl_weight=0.3, outer_steps=3)
CPU = torch.device("cpu")


def make(config: PrompConfig, kind: type[Promp] = Promp, seed: int = 0) -> Promp:
    """Return an agent in float64 whose parameters are all different from 0."""
    agent = kind(config, POINT.spec(), Streams(seed), CPU)
    agent.begin_with({k: v.to(DOUBLE) + 0.02 * normal(*v.shape, seed=i) for i, (k, v) in enumerate(agent.meta.items())})
    return agent


def iterate(agent: Promp, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Metrics]:
    """Run one meta-iteration; return what its objective was given, with the meta-parameters before, and its figures."""
    seen: dict[str, Any] = {"meta": {name: value.clone() for name, value in agent.meta.items()}}
    update = agent._update

    def watched(points: list[Params], batches: list[Batch]) -> Metrics:
        seen.update(before=batches[:-1], old=points[:-1], after=batches[-1], points=points)
        return update(points, batches)

    monkeypatch.setattr(agent, "_update", watched)
    env = make_worlds(POINT, agent.config.worlds, dtype=DOUBLE)
    return seen, agent.train_iteration(env, POINT.space.sample, Streams(0))


def leaves(params: Params) -> Params:
    return {name: value.detach().clone().requires_grad_() for name, value in params.items()}


# -- by hand --------------------------------------------------------------------------------------------------------


class OneNumber(Promp):
    """A policy N(θ, 1) whose σ is not adapted."""

    @property
    def rates(self) -> Rates:
        return {name: 0.1 if name == "b0" else 0.0 for name in self.meta}


def one_number() -> tuple[Promp, str]:
    agent = make(PrompConfig(tasks=1, episodes=1, hidden=(), clip=0.3, kl_weight=0.7), OneNumber)
    agent.policy = GaussianPolicy(network=MLP(inputs=1, hidden=(), outputs=1), initial_std=1.0)
    agent.loss = inner_loss(agent.policy, "lvc")
    agent.begin_with(
        {name: torch.zeros_like(value, dtype=DOUBLE) for name, value in agent.policy.init(_seed()).items()}
    )
    return agent, "b0"


def _seed() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def step(agent: Promp, params: Params, action: float, advantage: float) -> Batch:
    """Return a batch of one task, one episode and one step that a policy played."""
    number = torch.ones(1, 1, 1, dtype=DOUBLE)
    batch = {
        "observations": 0.0 * number[..., None],
        "actions": action * number[..., None],
        "advantages": advantage * number,
        "weights": number,
    }
    return batch | {"old_log_probs": log_probs(agent.policy, stack(params, 1), batch).detach()}


def test_the_meta_gradient_of_one_number() -> None:
    agent, theta = one_number()
    before = step(agent, agent.meta, 2.0, 1.0)
    (_, adapted) = agent.adapted(stack(agent.meta, 1), [before])
    assert float(adapted[theta].detach()) == pytest.approx(0.2)
    reached = {name: value[0].detach() for name, value in adapted.items()}
    data = {"before": [before], "old": [stack(agent.meta, 1)], "after": step(agent, reached, 1.0, 1.0)}
    gradients, values = meta_gradients(agent.objective, agent.meta, data)
    assert float(gradients[theta]) == pytest.approx(1.04)
    assert float(values) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "moves"),
    [(1.5, 1.0, 1.3, False), (1.5, -1.0, -1.5, True), (0.5, 1.0, 0.5, True), (0.5, -1.0, -0.7, False)],
)
def test_the_ratio_after_adaptation_is_clipped(ratio: float, advantage: float, gain: float, moves: bool) -> None:
    agent, theta = one_number()
    params = leaves(stack(agent.meta, 1))
    after = step(agent, agent.meta, 0.5, advantage)
    after["old_log_probs"] = after["old_log_probs"] - torch.tensor(ratio, dtype=DOUBLE).log()
    value = agent.gain(params, after)
    assert float(value.detach()) == pytest.approx(gain)
    (slope,) = torch.autograd.grad(value.sum(), [params[theta]])
    assert (float(slope.abs()) > 0.1) == moves


def test_the_penalty_is_from_the_old_policy_to_the_new() -> None:
    agent, theta = one_number()
    deviation = next(name for name in agent.meta if "std" in name)
    new = agent.meta | {theta: agent.meta[theta] + 1.0, deviation: agent.meta[deviation] + torch.tensor(2.0).log()}
    batch = step(agent, agent.meta, 0.0, 1.0)
    data = {"before": [batch], "old": [stack(agent.meta, 1)]}
    points = [stack(new, 1), stack(new, 1)]
    assert float(agent.kls(points, data)[0].detach()) == pytest.approx(0.4431, abs=1e-4)
    data["old"], points[0] = [stack(new, 1)], stack(agent.meta, 1)
    assert float(agent.kls(points, data)[0].detach()) == pytest.approx(1.3069, abs=1e-4)


def test_weights_follow_the_kl() -> None:
    assert next_weight(0.1, 0.0066, 0.01) == 0.05
    assert next_weight(0.1, 0.0067, 0.01) == 0.1
    assert next_weight(0.1, 0.0149, 0.01) == 0.1
    assert next_weight(0.1, 0.0151, 0.01) == 0.2


# -- the update -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clip", "weight"), [(0.3, 0.3), (0.01, 50.0)])
def test_at_the_old_parameters_it_is_the_surrogates_gradient(
    clip: float, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make(replace(SMALL, clip=clip, kl_weight=weight, inner_steps=2))
    seen, figures = iterate(agent, monkeypatch)
    data = {name: seen[name] for name in ("before", "old", "after")}
    found, values = meta_gradients(agent.objective, seen["meta"], data)
    torch.testing.assert_close(values, (seen["after"]["advantages"] * seen["after"]["weights"]).sum((1, 2)))
    assert figures["update/surrogate_before"] == pytest.approx(float(values.mean()))
    for index in range(agent.config.tasks):
        theta = leaves(seen["meta"])
        batches = [task(batch, index) for batch in seen["before"]]
        reached = plain_adapt(agent.loss, theta, batches, agent.rates)
        value = surrogate(agent.policy)(reached, task(seen["after"], index))
        gradient = torch.autograd.grad(value, list(theta.values()))
        assert_params_close(task(found, index), dict(zip(theta, gradient, strict=True)))


def plain_objective(agent: Promp, theta: Params, seen: dict[str, Any], index: int) -> Tensor:
    """Compute what one task has in the objective, step by step."""
    penalty, reached = torch.zeros((), dtype=DOUBLE), theta
    for weight, old, batch in zip(agent.kl_weights, seen["old"], seen["before"], strict=True):
        penalty = penalty + weight * mean_kl(agent.policy, task(old, index), reached, task(batch, index))
        reached = plain_adapt(agent.loss, reached, [task(batch, index)], agent.rates)
    after = task(seen["after"], index)
    ratio = (log_probs(agent.policy, reached, after) - after["old_log_probs"]).exp()
    best = torch.minimum(ratio * after["advantages"], ratio.clamp(0.7, 1.3) * after["advantages"])
    return (best * after["weights"]).sum() - penalty / len(seen["before"])


@pytest.mark.parametrize("executor", ["grouped", "vmap", "loop"])
def test_the_steps_are_adams_on_a_plain_loops_gradient(executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(replace(SMALL, inner_steps=2, executor=executor, learning_rate=0.05))
    seen, figures = iterate(agent, monkeypatch)
    theta = leaves(seen["meta"])
    adam = torch.optim.Adam(list(theta.values()), lr=0.05)

    def whole() -> Tensor:
        return torch.stack([plain_objective(agent, theta, seen, index) for index in range(3)]).mean()

    for _ in range(3):
        adam.zero_grad()
        (-whole()).backward()
        adam.step()
    assert_params_close(agent.meta, {name: value.detach() for name, value in theta.items()}, atol=1e-9)
    assert figures["update/surrogate_after"] == pytest.approx(float(whole().detach()))
    assert figures["update/improvement"] > 0.0
    assert figures["update/kl"] > 0.0
    assert figures["update/kl_unadapted"] > 0.0
    assert all(look_up(name) for name in figures)


def test_what_played_is_not_moved_with_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(SMALL)
    seen, _ = iterate(agent, monkeypatch)
    assert_params_close(task(seen["points"][0], 0), seen["meta"], atol=0.0)
    before = agent.start(POINT.space.sample(2, "train", _seed())).params
    kept = {name: value.clone() for name, value in before.items()}
    agent._step({name: torch.ones_like(value) for name, value in agent.meta.items()}, [])
    assert_params_close(before, kept, atol=0.0)


def test_weights_are_kept_with_the_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(replace(SMALL, target_kl=1e-9, inner_steps=2))
    iterate(agent, monkeypatch)
    assert agent.kl_weights == [0.6, 0.6]
    state = agent.state_dict()
    other = make(agent.config, seed=1)
    other.load_state_dict(state)
    monkeypatch.undo()
    for one in (agent, other):
        env = make_worlds(POINT, one.config.worlds, dtype=DOUBLE)
        one.train_iteration(env, POINT.space.sample, Streams(7))
    assert_params_close(agent.meta, other.meta, atol=0.0)
    assert agent.kl_weights == other.kl_weights
    for wrong in ([-1.0, 0.6], [float("inf"), 0.6]):
        with pytest.raises(ValueError, match="the stored weights of the KLs are"):
            other.load_state_dict({**state, "kl_weights": wrong})


def test_a_gradient_that_is_not_finite_ends_it() -> None:
    agent = make(SMALL)
    kept = {name: value.clone() for name, value in agent.meta.items()}
    wrong = {name: torch.full_like(value, torch.inf) for name, value in agent.meta.items()}
    batch = {"advantages": torch.full((1, 1, 1), torch.nan)}
    with pytest.raises(NotFiniteError, match="what is made of the rewards, is not finite"):
        agent._step(wrong, [batch])
    assert_params_close(agent.meta, kept, atol=0.0)


@pytest.mark.parametrize("wrong", [{"inner_steps": 0}, {"clip": 0.0}, {"outer_steps": 0}, {"target_kl": -1.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong)).replace("_", "[_-]")):
        PrompConfig(**wrong)
