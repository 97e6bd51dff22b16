from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from metarl.errors import NotFiniteError, UserError
from metarl.fewshot import EpisodeShape, Support
from metarl.fewshot.manifest import make as make_manifest
from metarl.fewshot.measure import (
    BINS,
    PixelNeighbour,
    calibration_bins,
    calibration_error,
    items_at_once,
    measure,
    tasks_at_once,
)
from metarl.fewshot.parts.norms import BatchNorm
from tests.helpers.tiny_fewshot import SHAPE, Lines, untrained, vectors


@dataclass(frozen=True)
class Mean:
    """Predicts the mean of the support values plus so much; a step halves what is added."""

    added: float = 0.0
    support: Support | None = None

    def fit(self, support: Support, batch_norm: BatchNorm | None = None) -> Mean:
        return Mean(self.added, support)

    def path(self, support: Support, steps: int, batch_norm: BatchNorm | None = None) -> Sequence[Mean]:
        return [Mean(self.added / 2.0**step, support) for step in range(steps + 1)]

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        assert self.support is not None
        return self.support.y.mean(1, keepdim=True).expand(-1, x.shape[1], -1) + self.added


def test_accuracy_of_every_episode() -> None:
    data = vectors()
    manifest = make_manifest(data, "test", 50, SHAPE, 0)
    proto = untrained("proto")
    found = measure(proto, data, manifest)
    assert found.path is None
    for number in (0, 17, 49):
        episode = manifest.episodes(data, number, number + 1)
        answers = proto.fit(episode.support).predict(episode.query_x)[0].argmax(-1)
        assert found.values[number].item() == pytest.approx((answers == episode.query_y[0]).double().mean().item())


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    data = vectors()
    manifest = make_manifest(data, "test", 30, SHAPE, 0)
    for name in ("proto", "maml"):
        whole = measure(untrained(name), data, manifest, steps=2)
        monkeypatch.setattr("metarl.fewshot.measure.MEMORY", 1)
        parts = measure(untrained(name), data, manifest, steps=2)
        monkeypatch.undo()
        torch.testing.assert_close(parts.values, whole.values)
        assert (parts.path is None) == (whole.path is None) == (name == "proto")


def test_chunks_are_smaller_for_larger_items() -> None:
    sizes = [items_at_once(shape) for shape in ((1,), (1, 28, 28), (3, 84, 84), (3, 10_000, 10_000))]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    small, large = untrained("maml"), untrained("maml", rates="parameter")
    assert tasks_at_once(small, 1) > tasks_at_once(small, 50) > tasks_at_once(large, 50) > 1
    assert tasks_at_once(small, 10**9) == 1


def test_error_and_curve_in_regression() -> None:
    data = Lines()
    shape = EpisodeShape(shot=4, query=6)
    manifest = make_manifest(data, "test", 20, shape, 0)
    found = measure(Mean(added=1.0), data, manifest, steps=3)
    assert found.bins is None
    assert found.path is not None
    episodes = data.episodes("test", range(20), shape, 0)
    for step, values in enumerate(found.path):
        wrong = episodes.support.y.mean(1, keepdim=True) + 0.5**step - episodes.query_y
        torch.testing.assert_close(values, wrong.double().square().mean((1, 2)), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.values, found.path[0])


def test_a_curve_starts_at_chance_and_its_steps_are_those_of_the_untrained() -> None:
    data = vectors()
    manifest = make_manifest(data, "test", 200, SHAPE, 0)
    maml = untrained("maml", inner_steps=2)
    found = measure(maml, data, manifest, steps=3)
    assert found.path is not None
    assert found.path.shape == (4, 200)
    torch.testing.assert_close(found.path[2], found.values)
    deviation = found.path[0].std().item() / math.sqrt(200)
    assert abs(found.path[0].mean().item() - 0.2) < 4.0 * deviation


def test_scores_that_are_not_finite_are_refused() -> None:
    data = Lines()
    manifest = make_manifest(data, "test", 4, EpisodeShape(shot=4, query=6), 0)
    with pytest.raises(NotFiniteError, match="not finite"):
        measure(Mean(added=math.nan), data, manifest)


def test_calibration_by_hand() -> None:
    # Two classes: confidences .9, .9, .6, .8; right, wrong, right, right. Bins of 1/15: .9 in the 14th, .6 in the
    # 9th (its upper end), .8 in the 12th.
    sure = torch.tensor([0.9, 0.9, 0.6, 0.8], dtype=torch.float64)
    scores = torch.stack([sure, 1.0 - sure], dim=-1).log()[None]
    bins = calibration_bins(scores, torch.tensor([[0, 1, 0, 0]]))
    assert bins.shape == (BINS, 3)
    assert bins[13].tolist() == pytest.approx([2.0, 1.8, 1.0])
    assert bins[:, 0].sum() == 4.0
    expected = 2 / 4 * abs(0.5 - 0.9) + 1 / 4 * abs(1.0 - 0.6) + 1 / 4 * abs(1.0 - 0.8)
    assert calibration_error(bins) == pytest.approx(expected)
    certain = calibration_bins(torch.tensor([[[0.0, 200.0]]]), torch.tensor([[1]]))
    assert certain[-1].tolist() == [1.0, 1.0, 1.0]


def test_pixel_neighbour_by_hand() -> None:
    support = Support(x=torch.tensor([[[0.0], [1.0], [5.0], [9.0]]]), y=torch.tensor([[0, 1, 1, 0]]), way=2)
    scores = PixelNeighbour().fit(support).predict(torch.tensor([[[0.2], [4.0], [8.0]]]))
    torch.testing.assert_close(scores, torch.tensor([[[-0.2, -0.8], [-4.0, -1.0], [-1.0, -3.0]]]))
    with pytest.raises(UserError, match="Leave --baseline out"):
        PixelNeighbour().fit(Support(x=support.x, y=support.x, way=0))
