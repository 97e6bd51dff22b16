"""Films of one task before and after adaptation."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import metarl
from metarl.api.film import FILM_SIZE, before_and_after
from metarl.api.runs import Run, draw_tasks, untrained
from metarl.errors import UserError
from metarl.evaluation.film import Clip
from tests.helpers.tiny_trainings import FEW, trained


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    root = tmp_path_factory.mktemp("runs")
    return {agent: trained(root / agent, agent) for agent in ("maml-trpo", "rl2")}


def clips_of(run: Run, steps: int, seed: int = 0) -> list[Clip]:
    task = draw_tasks(run.family, 1, "test", seed)
    return before_and_after(run.agent, run.family, task, steps=steps, episodes=3, seed=seed, size=(64, 48))


def test_captions_say_what_was_learned_from(runs: dict[str, Run]) -> None:
    for agent, steps, captions in (
        ("maml-trpo", 0, ["before adaptation"]),
        ("maml-trpo", 1, ["before adaptation", "after 1 step on 3 episodes"]),
        ("rl2", 2, ["episode 1 of the trial", "episode 3 of the trial"]),
    ):
        clips = clips_of(runs[agent], steps)
        assert [clip.caption for clip in clips] == captions
        # The same start, in pictures of the size that was asked for.
        assert all((clip.frames[0] == clips[0].frames[0]).all() for clip in clips)
        assert clips[0].frames[0].shape == (48, 64, 3)
        assert all(len(clip.frames) == len(clip.returns) > 1 for clip in clips)


def test_adaptation_changes_what_is_played_and_leaves_the_agent_alone(runs: dict[str, Run]) -> None:
    run = runs["maml-trpo"]
    before = {name: value.clone() for name, value in run.agent.state_dict()["meta"].items()}
    first, last = clips_of(run, 2)
    assert last.caption == "after 2 steps on 6 episodes"
    assert first.returns != last.returns
    assert [clip.returns for clip in clips_of(run, 2)] == [first.returns, last.returns]
    assert all(torch.equal(value, before[name]) for name, value in run.agent.state_dict()["meta"].items())


def test_an_untrained_policy_is_played_as_such(runs: dict[str, Run]) -> None:
    family = runs["rl2"].family
    agent = untrained(family, 0, torch.device("cpu"))
    task = draw_tasks(family, 1, "test", 0)
    (clip,) = before_and_after(agent, family, task, steps=0, episodes=2, seed=0, size=(64, 48))
    assert clip.caption == "untrained policy"


def test_an_evaluation_puts_picture_and_films_into_tensorboard(runs: dict[str, Run], tmp_path: Path) -> None:
    curve = metarl.evaluate(list(runs.values()), steps=1, film=True, out=tmp_path, **FEW)
    assert list(curve.films) == curve.agents == ["maml-trpo", "rl2"]
    for number, agent in enumerate(curve.agents):
        events = EventAccumulator(str(tmp_path / agent))
        events.Reload()
        tags = events.Tags()["images"]
        # The picture shows all curves: it is there once.
        assert tags == (["adaptation/picture", "adaptation/film"] if number == 0 else ["adaptation/film"])
        (film,) = events.Images("adaptation/film")
        assert film.encoded_image_string == curve.films[agent]
        with Image.open(io.BytesIO(film.encoded_image_string)) as picture:
            assert picture.format == "GIF"
            assert picture.width > 2 * FILM_SIZE[0]
            assert getattr(picture, "n_frames", 1) > 10
            assert (film.width, film.height) == picture.size
        assert [event.step for event in events.Scalars("adaptation/mean")] == ([0, 2] if number == 0 else [0, 1])
    (picture,) = events_of(tmp_path / "maml-trpo").Images("adaptation/picture")
    assert picture.encoded_image_string == (tmp_path / "adaptation.png").read_bytes()


def events_of(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_what_cannot_be_drawn_has_no_film(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise UserError("no off-screen OpenGL here")

    monkeypatch.setattr("metarl.api.film.make_painter", refuse)
    curve = metarl.evaluate(runs["maml-trpo"], steps=1, film=True, out=tmp_path, **FEW)
    assert curve.films == {}
    assert events_of(tmp_path / "maml-trpo").Tags()["images"] == ["adaptation/picture"]
    with pytest.raises(UserError, match="no off-screen OpenGL"):
        clips_of(runs["maml-trpo"], 1)
