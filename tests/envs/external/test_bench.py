"""The benchmark of worker processes: what it measures, and what it cannot."""

import json
import time
from pathlib import Path

import pytest

from metarl.cli.main import main
from metarl.envs import GymnasiumFamily, make_worlds
from metarl.envs.external.adapter import WorkerPhysics
from metarl.errors import UserError
from tests.helpers.adapted import begin, clock, named, own_envs, reach, trouble
from tests.helpers.toys import seeded

OWN = """
import own_envs

from metarl.envs import GymnasiumFamily, Parameter, register

goal = Parameter(name="goal", unit="m", description="where to go", scale="uniform", low=-1.0, high=1.0, size=2)
register(GymnasiumFamily(name="slow-reach", make=f"{own_envs.__file__}:Reach", parameters=(goal,), horizon=4))
register(GymnasiumFamily(name="side-by-side", make=own_envs.worlds, vector=True, parameters=(goal,), horizon=4))
"""

pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / f"{tmp_path.name}.py"
    path.write_text(OWN)
    return str(path)


def test_worlds_in_workers_beside_bare_loops(own: str, capsys: pytest.CaptureFixture[str]):
    options = ["bench", "external", "--family", f"{own}:slow-reach", "--worlds", "3", "--processes", "2"]
    assert main([*options, "--steps", "4", "--rounds", "3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    speeds = report["env_steps_per_second"]
    assert set(speeds) == {"worlds, by a policy", "bare loop"}
    assert all(speed > 0.0 for speed in speeds.values())
    low, high = report["quartiles"]
    assert 0.0 < low <= report["to_the_loop"] <= high
    assert 0.0 < report["resets_share"] < 1.0
    assert report["processes"] == 2
    # More processes than worlds have nothing to do.
    assert main([*options[:-1], "5", "--steps", "2", "--rounds", "1"]) == 0
    assert "3 worlds, 3 processes, 1 rounds of 2 steps" in capsys.readouterr().out


def test_what_has_no_bare_loop_is_refused(own: str, capsys: pytest.CaptureFixture[str]):
    for name in ("half-cheetah-vel", f"{own}:side-by-side"):
        assert main(["bench", "external", "--family", name]) == 2
        assert "Choose a family whose worlds are Gymnasium environments in worker" in capsys.readouterr().err
    assert main(["bench", "external", "--family", f"{own}:slow-reach", "--steps", "5"]) == 2
    assert "Got --steps 5. An episode of slow-reach@v1 has 4." in capsys.readouterr().err


def test_a_bare_loop_begins_again_where_an_episode_ends_and_leaves_out_what_that_takes():
    family = clock(make=own_envs.SlowClock)
    worlds = make_worlds(family, 2, threads=2)
    worlds.set_tasks(family.space.from_records([{"ends": 2.0}, {"ends": -3.0}]))
    worlds.reset(seeded())
    assert isinstance(worlds.physics, WorkerPhysics)
    pool, started = worlds.physics.pool, time.perf_counter()
    first, second = pool.loop(7)
    passed = time.perf_counter() - started
    # They began again after the steps 2, 4 and 6, and 3 and 6. The last step was the first of its episode.
    assert passed > 3 * 0.2
    assert first < passed - 3 * 0.2
    assert second < passed - 2 * 0.2
    pool.arrays["active"][:] = 1
    pool.step()
    assert pool.arrays["observation"].tolist() == [[2.0], [2.0]]


@pytest.mark.parametrize(
    ("family", "says"),
    [
        (trouble("raise"), r"world 0, step, with the task .*ZeroDivisionError: the arm"),
        (
            reach(make=own_envs.worlds, set_task=own_envs.set_goals, vector=True),
            "a vector environment steps its worlds itself: there is no bare loop",
        ),
    ],
    ids=named,
)
def test_what_goes_wrong_in_a_bare_loop_is_said(family: GymnasiumFamily, says: str):
    worlds, _ = begin(family, 2, 1)
    assert isinstance(worlds.physics, WorkerPhysics)
    with pytest.raises(UserError, match=says):
        worlds.physics.pool.loop(3)
