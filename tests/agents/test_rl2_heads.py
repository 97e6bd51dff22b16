"""RL2's heads: without options as ever; what they are shown; a memory that emits them; pictures, probe and export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.agents.rl2 import Network, Rl2, Rl2Config
from metarl.cli.main import main
from metarl.config import check_used
from metarl.envs import make_worlds
from metarl.errors import UserError
from metarl.learning.recall import Actor
from metarl.nets.pictures import FEATURES
from metarl.seeding import Streams
from tests.helpers.exported import written
from tests.helpers.stripes import Stripes
from tests.helpers.toys import normal, seeded
from tests.helpers.trials import CPU, SMALL, Ragged, make, unscaled

OPTIONS: list[dict[str, Any]] = [
    {"head_observations": True},
    {"head": (3,), "head_observations": True, "core": "transformer"},
    {"core": "hyper", "head": (3,)},
]


def network(**options: Any) -> Network:
    return Network(replace(SMALL, **options), Ragged().spec(), seeded())


def test_without_options_weights_have_the_names_and_the_draws_that_they_had() -> None:
    plain, generator = network(), seeded()
    names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    cells = [f"core.cells.{name}" for name in names]
    heads = ["policy.weight", "policy.bias", "value.weight", "value.bias"]
    # Their order is that of the optimiser's state in a checkpoint.
    found = list(dict(plain.named_parameters()))
    assert found == ["log_std", *cells, "core.norm.weight", "core.norm.bias", *heads]
    # Core, policy, values, one after the other from one generator.
    for rows in (6, 4):
        for _ in range(3):
            torch.nn.init.orthogonal_(torch.empty(4, rows), generator=generator)
    torch.rand(4, generator=generator)
    for name, gain in (("policy", 0.01), ("value", 1.0)):
        expected = torch.empty_like(plain.get_parameter(f"{name}.weight"))
        torch.nn.init.orthogonal_(expected, gain=gain, generator=generator)
        assert torch.equal(plain.get_parameter(f"{name}.weight"), expected)
    # The memory is the same one with any head.
    for options in ({"head_observations": True}, {"core": "hyper"}):
        other = network(**options)
        assert all(
            torch.equal(other.core.get_parameter(f"core.cells.{n}"), plain.get_parameter(c))
            for n, c in zip(names, cells, strict=True)
        )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_observation_goes_straight_to_policy_and_values_and_is_not_what_is_remembered(
    options: dict[str, Any],
) -> None:
    family = Ragged()
    agent = make(replace(SMALL, **options), family.spec())
    unscaled(agent.inputs)
    made, observation = agent.network, normal(5, 2).float()
    actor = Actor(made, agent.inputs, CPU)
    remembered, _ = actor.look(observation)
    assert remembered.shape == (5, SMALL.width)
    features, _ = actor._moment(observation)
    assert torch.equal(features, torch.cat((observation, remembered), dim=1))
    moved = features.clone()
    moved[:, :2] += 1.0
    for before, after in zip(
        (made.act(features)[0], made.value(features)), (made.act(moved)[0], made.value(moved)), strict=True
    ):
        assert bool((before - after).abs().gt(1e-3).all())


@pytest.mark.parametrize("head", [(), (3,)])
def test_a_memory_that_emits_begins_with_one_policy_for_all_and_learns_others(head: tuple[int, ...]) -> None:
    family, config = Ragged(), replace(SMALL, core="hyper", head=head)
    agent = Rl2(config, family.spec(), Streams(0), CPU)
    features = torch.cat((normal(1, 2).expand(6, -1), normal(6, SMALL.width, seed=1)), dim=1).float()

    def spread() -> list[float]:
        """Return how far actions and values at one observation are apart, over what is remembered."""
        with torch.no_grad():
            found = agent.network.act(features)[0], agent.network.value(features)
        return [float((part - part[:1]).abs().max()) for part in found]

    assert spread() == [0.0, 0.0]
    env = make_worlds(family, config.tasks, threads=1)
    for _ in range(2):
        agent.train_iteration(env, family.space.sample, Streams(0))
    assert min(spread()) > 1e-4
    # The memory is learned too: its gradient is zero in the first step alone.
    fresh = Rl2(config, family.spec(), Streams(0), CPU)
    for name, weight in agent.network.core.named_parameters():
        assert not torch.equal(weight, fresh.network.core.get_parameter(name)), name


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_pictures_come_to_the_head_encoded(options: dict[str, Any]) -> None:
    family = Stripes(horizon=3)
    agent = make(replace(SMALL, **options), family.spec())
    shown = family.observation_size - family.pictures[0].size + FEATURES
    assert agent.network.shown == agent.config.shown(family.spec()) == shown
    metrics = agent.train_iteration(make_worlds(family, SMALL.tasks, threads=1), family.space.sample, Streams(0))
    assert metrics["update/steps"] > 0.0
    numbers = make(replace(SMALL, encode_pictures=False, **options), family.spec())
    assert numbers.network.shown == family.observation_size


def test_what_is_emitted_is_not_exported_and_the_advice_works(tmp_path: Path) -> None:
    family = Ragged()
    with pytest.raises(UserError, match=r"emits the weights.*Train with another --core, and --head-observations\.$"):
        written(make(replace(SMALL, core="hyper"), family.spec()), family, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    written(make(replace(SMALL, head_observations=True), family.spec()), family, tmp_path / "policy")


def test_an_option_that_changes_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["train", "rl2", "--family", "bandit", "--core", "hyper", "--out", str(tmp_path / "run")]
    assert main([*asked, "--head-observations"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "Got --head-observations for rl2, which changes nothing there: it needs another --core" in error
    assert not (tmp_path / "run").exists()
    config = Rl2Config(core="hyper")
    check_used(config, config.unused("rl2", Stripes().spec(), CPU))
