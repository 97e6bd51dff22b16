from __future__ import annotations

import json

import pytest

from metarl.agents import AGENTS
from metarl.cli.main import main
from metarl.envs import families
from metarl.run.glossary import GLOSSARY


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    everything = [family.full_name for variants in families().values() for family in variants]
    assert [family["name"] for family in found["families"]] == everything
    assert [agent["name"] for agent in found["agents"]] == list(AGENTS)

    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for name in (*families(), *AGENTS):
        assert name in shown


@pytest.mark.parametrize("width", [80, 100])
def test_list_shows_all_of_every_family(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["list", "--families"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    words = shown.split()
    for variants in families().values():
        for family in variants:
            row = [family.variant, *map(str, (family.observation_size, family.action_size, family.horizon))]
            assert any(words[at : at + 4] == row for at in range(len(words))), family.full_name
            for parameter in family.space.parameters:
                assert parameter.name in words
                assert parameter.scale in words
                for word in parameter.allowed().split()[:3]:
                    assert word in words
    assert "100 train, 30 test, ood" in " ".join(words)
    # Two-task families say that train and test coincide.
    assert "train = test" in " ".join(words)

    assert main(["list", "--families", "--json"]) == 0
    found = {family["name"]: family for family in json.loads(capsys.readouterr().out)}
    cheetah = found["half-cheetah-vel@pearl19"]
    assert cheetah["fixed_tasks"] == {"train": 100, "test": 30, "seed": 0}
    assert cheetah["splits"] == ["train", "test", "ood"]
    assert cheetah["parameters"][0]["high"] == 3.0
    assert not cheetah["train_and_test_coincide"]
    assert found["ant-dir@v5"]["train_and_test_coincide"]


def test_list_explains_a_family_an_agent_and_the_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "point-nav@maml17"]) == 0
    shown = capsys.readouterr().out
    for text in ("Finn et al. 2017", "-0.5 to 0.5 m", "y of the point", "metarl/PointNav-v0"):
        assert text in shown
    assert main(["list", "half-cheetah-dir"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("maml17 18 6 200", "half-cheetah-dir@v5: gymnasium.make", "Train and test tasks coincide"):
        assert text in shown
    assert "variant=" not in shown
    assert main(["list", "half-cheetah-vel@pearl19+mass"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert 'gymnasium.make("metarl/HalfCheetahVel-v0", variant="pearl19+mass")' in shown
    assert main(["list", "ant-dir+damage"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert 'gymnasium.make("metarl/AntDir-v0", variant="v5+damage")' in shown
    assert main(["list", "oracle"]) == 0
    assert "--inner-rate" in capsys.readouterr().out
    assert main(["list", "--metrics", "--json"]) == 0
    assert [row["tag"] for row in json.loads(capsys.readouterr().out)] == list(GLOSSARY)
    assert main(["list", "--metrics"]) == 0
    assert "adaptation/mean" in capsys.readouterr().out
