from __future__ import annotations

import pytest
import torch
from torch import nn

from metarl.errors import UserError
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support
from metarl.fewshot.learners import LEARNERS, config_class, make
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.parts.backbones import make_backbone
from metarl.fewshot.parts.conv1d import Conv1d
from metarl.fewshot.parts.executors import choose, laid_out
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.parts.norms import Norm
from metarl.seeding import Streams
from tests.helpers.stepping_learners import flat
from tests.helpers.toys import normal

BACKBONE = Conv1d(item_shape=(2, 37), width=3)
SHAPE = EpisodeShape(way=3, shot=2, query=2)


def by_torch(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return features as torch's own layers give them, all items making the statistics."""
    for layer in range(4):
        convolution = nn.Conv1d(x.shape[1], 3, BACKBONE.kernel, padding="same", bias=False)
        convolution.weight = nn.Parameter(params[f"conv{layer}"].squeeze(-2))
        scale, shift = params[f"scale{layer}"], params[f"shift{layer}"]
        x = nn.functional.batch_norm(convolution(x), None, None, scale, shift, training=True)
        x = nn.functional.max_pool1d(x.relu(), 2)
    return x.mean(-1)


def drawn(seed: int) -> dict[str, torch.Tensor]:
    return BACKBONE.init(torch.Generator().manual_seed(seed), torch.float64)


def test_it_is_what_torch_makes_of_signals() -> None:
    params, x = drawn(0), normal(5, 2, 37)
    for channels_last in (True, False):
        found = make_backbone("conv1d", (2, 37), width=3, channels_last=channels_last)(params, x, Norm("transductive"))
        torch.testing.assert_close(found, by_torch(params, x), rtol=1e-12, atol=1e-12)
    assert (BACKBONE.features, BACKBONE.norms) == (3, 4)


def test_tasks_may_share_parameters_or_have_their_own() -> None:
    x = normal(4, 5, 2, 37)
    several = [drawn(seed) for seed in range(4)]
    shared = BACKBONE(several[0], x, Norm("transductive"))
    own = BACKBONE({k: torch.stack([p[k] for p in several]) for k in several[0]}, x, Norm("transductive"), by_task=True)
    for task in range(4):
        torch.testing.assert_close(shared[task], by_torch(several[0], x[task]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(own[task], by_torch(several[task], x[task]), rtol=1e-12, atol=1e-12)


def episodes() -> Episodes:
    x, y = normal(3, 12, 2, 37), torch.arange(3).repeat_interleave(2).expand(3, 6)
    return Episodes(support=Support(x=x[:, :6], y=y, way=3), query_x=x[:, 6:], query_y=y)


def test_every_executor_gives_the_same_meta_gradient() -> None:
    setting = Setting(shape=SHAPE, backbone=BACKBONE, dtype=torch.float64)
    found = {}
    for executor in ("loop", "grouped", "vmap"):
        learner = Maml(MamlConfig(tasks=3, executor=executor), setting, Streams(0), torch.device("cpu"))
        found[executor] = flat(learner.meta_gradient(episodes())[0])
    assert float(found["loop"].norm()) > 0.01
    for executor in ("grouped", "vmap"):
        torch.testing.assert_close(found[executor], found["loop"], rtol=1e-9, atol=1e-11)
    assert choose("auto", BACKBONE) == "grouped"
    assert choose("auto", Conv1d(item_shape=(1, 16000))) == "loop"
    assert laid_out(BACKBONE, "vmap") == Conv1d(item_shape=(2, 37), width=3, channels_last=False)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_can_have_it(name: str) -> None:
    setting = Setting(shape=SHAPE, backbone=Conv1d(item_shape=(2, 37), width=3), classes=8)
    learner = make(name, config_class(name)(), setting, Streams(0), torch.device("cpu"))
    support = episodes().support
    predictor = learner.fit(Support(x=support.x.float(), y=support.y, way=3))
    scores = predictor.predict(episodes().query_x.float())
    assert scores.shape == (3, 6, 3)
    assert bool(scores.isfinite().all())


@pytest.mark.parametrize("shape", [(3, 16, 16), (64,), (2, 15)])
def test_what_is_no_signal_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"conv1d takes signals \(channels, length\) of at least 16 values. Use --b"):
        make_backbone("conv1d", shape)
    with pytest.raises(UserError, match="Got a width of 0"):
        make_backbone("conv1d", (2, 16), width=0)
    with pytest.raises(UserError, match="Use --backbone conv1d for signals"):
        make_backbone("conv4", (2, 128))
