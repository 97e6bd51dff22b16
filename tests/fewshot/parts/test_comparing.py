from __future__ import annotations

import pytest

from metarl.errors import UserError
from metarl.fewshot.episodes import EpisodeShape
from tests.helpers.comparing_learners import (
    images,
    made,
)


def test_training_has_the_ways_that_were_asked_for_as_far_as_the_data_can_give_them() -> None:
    assert made("proto", images()).shape(0) == EpisodeShape(way=20, shot=1, query=3)
    assert made("proto", images(), train_way=0).shape(0).way == 5
    assert made("proto", images(most_way=12)).shape(0).way == 12
    assert made("proto", images(most_way=2)).shape(0).way == 2
    assert made("proto", images(classes=19)).shape(0).way == 19


def test_training_shots_are_random_where_that_is_asked_for() -> None:
    setting = images(shape=EpisodeShape(way=5, shot=4, query=3))
    shots = [made("r2d2", setting, min_shot=2).shape(number).shot for number in range(200)]
    assert {shot: shots.count(shot) > 40 for shot in shots} == {2: True, 3: True, 4: True}
    assert {made("r2d2", setting).shape(number).shot for number in range(20)} == {4}
    with pytest.raises(UserError, match="--min-shot 5 and --shot 4"):
        made("r2d2", setting, min_shot=5)
