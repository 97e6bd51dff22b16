from __future__ import annotations

import torch
from torch import nn

from metarl.fewshot.parts.backbones import Conv4
from metarl.fewshot.parts.norms import Norm
from tests.helpers.toys import normal


def test_convolutions_in_bfloat16_are_near_those_in_float32() -> None:
    params = Conv4(item_shape=(1, 28, 28), width=8).init(torch.Generator().manual_seed(0))
    x = torch.rand(2, 10, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    exact, coarse = (
        Conv4(item_shape=(1, 28, 28), width=8, precision=precision)(params, x, Norm(support=5))
        for precision in ("float32", "bfloat16")
    )
    assert coarse.dtype == torch.float32
    error = (coarse - exact).norm() / exact.norm()
    assert 1e-4 < float(error) < 5e-2


def test_a_norm_whose_scale_is_negative_may_come_behind_the_pooling() -> None:
    backbone = Conv4(item_shape=(1, 16, 16), width=3)
    params = backbone.init(torch.Generator().manual_seed(0), torch.float64)
    for layer in range(4):
        params[f"scale{layer}"] = torch.tensor([-1.5, 0.5, 0.0], dtype=torch.float64)
        params[f"shift{layer}"] = torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)
    x = normal(6, 1, 16, 16)
    wanted = x
    for layer in range(4):
        wanted = nn.functional.conv2d(wanted, params[f"conv{layer}"], padding=1)
        scale, shift = params[f"scale{layer}"], params[f"shift{layer}"]
        wanted = nn.functional.batch_norm(wanted, None, None, scale, shift, training=True)
        wanted = nn.functional.max_pool2d(wanted.relu(), 2)
    assert torch.allclose(backbone(params, x, Norm("transductive")), wanted.flatten(1), atol=1e-12)
