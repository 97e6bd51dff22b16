from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metarl.errors import UserError
from metarl.seeding import Streams


def draw(streams: Streams, name: str, count: int = 4) -> list[float]:
    return torch.rand(count, generator=streams[name]).tolist()


def test_streams_do_not_depend_on_the_order_of_first_use() -> None:
    forwards, backwards = Streams(7), Streams(7)
    first = {name: draw(forwards, name) for name in ("tasks", "policy", "worlds")}
    second = {name: draw(backwards, name) for name in ("worlds", "policy", "tasks")}
    assert first == second


def test_streams_differ_by_seed_rank_and_name() -> None:
    drawn = [
        tuple(draw(Streams(seed, rank), name))
        for seed in (0, 1, 2**40)
        for rank in (0, 1)
        for name in ("tasks", "policy")
    ]
    assert len(set(drawn)) == len(drawn)


def test_streams_are_the_same_in_another_process() -> None:
    code = (
        "import torch; from metarl.seeding import Streams; print(torch.rand(4, generator=Streams(3)['tasks']).tolist())"
    )
    root = Path(__file__).parents[1]
    output = subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True)
    assert output.strip() == str(draw(Streams(3), "tasks"))


def test_state_goes_through_a_safe_load_and_back() -> None:
    streams = Streams(5, rank=2)
    draw(streams, "tasks")
    buffer = io.BytesIO()
    torch.save(streams.state_dict(), buffer)
    expected = [draw(streams, "tasks"), draw(streams, "policy")]

    buffer.seek(0)
    restored = Streams(5, rank=2)
    draw(restored, "policy")
    restored.load_state_dict(torch.load(buffer, weights_only=True))
    assert [draw(restored, "tasks"), draw(restored, "policy")] == expected


def test_saved_state_does_not_follow_later_draws() -> None:
    streams = Streams(5)
    draw(streams, "tasks")
    saved = streams.state_dict()
    expected = draw(streams, "tasks")
    streams.load_state_dict(saved)
    assert draw(streams, "tasks") == expected


def test_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    draw(Streams(1), "tasks")
    assert torch.equal(torch.get_rng_state(), before)


def test_foreign_state_and_negative_seeds_are_refused() -> None:
    with pytest.raises(UserError, match="seed 1, rank 0, for a run of seed 2"):
        Streams(2).load_state_dict(Streams(1).state_dict())
    with pytest.raises(UserError, match="seed -1"):
        Streams(-1)
