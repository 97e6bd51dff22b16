"""Batch norms of a module follow the policies as those of the built-in backbones do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from metarl.errors import UserError
from metarl.fewshot.parts.backbones import Conv4
from metarl.fewshot.parts.norms import BatchNorm, Moment, Norm
from metarl.fewshot.parts.own import OwnBackbone, own_backbone
from metarl.types import Params
from tests.helpers.own_modules import IMAGE, convolutions, filled
from tests.helpers.toys import DOUBLE, normal, seeded


def both(by_task: int = 0) -> tuple[OwnBackbone, Params, Conv4, Params]:
    """Return the same network as a module and as a built-in backbone, with the same parameters."""
    own, conv4 = own_backbone(filled(convolutions()), IMAGE), Conv4(item_shape=IMAGE, width=4)
    assert (own.features, own.norms) == (conv4.features, conv4.norms)
    params = {name: value.double() for name, value in own.init(torch.Generator()).items()}
    if by_task:
        params = {
            name: value + 0.3 * torch.randn(by_task, *value.shape, generator=seeded(4), dtype=DOUBLE)
            for name, value in params.items()
        }
    names = {}
    for block in range(4):
        names |= {f"conv{block}": f"{4 * block}.weight", f"scale{block}": f"{4 * block + 1}.weight"}
        names |= {f"shift{block}": f"{4 * block + 1}.bias"}
    return own, params, conv4, {name: params[f"backbone.{other}"] for name, other in names.items()}


def leaves(params: Params) -> Params:
    return {name: value.clone().requires_grad_() for name, value in params.items()}


@pytest.mark.parametrize("form", ["one", "shared", "by task"])
@pytest.mark.parametrize("policy", ["support", "transductive", "running"])
def test_a_module_is_what_the_same_network_of_ours_is(policy: BatchNorm, form: str) -> None:
    own, params, conv4, theirs = both(3 if form == "by task" else 0)
    x = normal(7, *IMAGE) if form == "one" else normal(3, 7, *IMAGE)
    averages = [Moment(normal(4, seed=n), normal(4, seed=n + 9).exp()) for n in range(4)]
    norm = Norm(policy, support=5, averages=averages if policy == "running" else None)
    found = []
    for backbone, given in ((own, leaves(params)), (conv4, leaves(theirs))):
        features = backbone(given, x, norm, by_task=form == "by task")
        gradients = torch.autograd.grad(features.square().sum(), list(given.values()))
        found.append((features, torch.cat([part.flatten() for part in gradients]).sort().values))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["one", "shared", "by task"])
def test_moments_are_kept_as_those_of_ours(form: str) -> None:
    own, params, conv4, theirs = both(3 if form == "by task" else 0)
    x = normal(7, *IMAGE) if form == "one" else normal(3, 7, *IMAGE)
    seen: tuple[list[Moment], list[Moment]] = ([], [])
    for backbone, given, mine in ((own, params, seen[0]), (conv4, theirs, seen[1])):
        backbone(given, x, Norm("running", seen=mine), by_task=form == "by task")
    for first, second in zip(*seen, strict=True):
        torch.testing.assert_close(tuple(first), tuple(second), rtol=1e-9, atol=1e-9)


class Twice(nn.Module):
    """One norm used twice, over several rows of an item; another without weights, over numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4, eps=1e-2)
        self.again = self.norm
        self.last = nn.BatchNorm1d(4, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(self.again(x.unflatten(1, (3, 4)).flatten(0, 1)))
        return self.last(rows.unflatten(0, (-1, 3)).mean(1))


def test_shared_norms_and_several_rows_of_an_item() -> None:
    own = own_backbone(Twice(), (12,))
    assert own.norms == 3
    x = normal(2, 5, 12)
    found = own({name: value.double() for name, value in own.init(torch.Generator()).items()}, x, Norm("transductive"))
    for task in range(2):
        expected = Twice().double().train()(x[task])
        torch.testing.assert_close(found[task], expected)
    # Queries change nothing for the others where the support set counts alone.
    params = {name: value.double() for name, value in own.init(torch.Generator()).items()}
    first = own(params, x, Norm("support", support=3))
    x[:, 4] += 5.0
    torch.testing.assert_close(own(params, x, Norm("support", support=3))[:, :4], first[:, :4])


def test_a_norm_that_is_the_module(tmp_path: object) -> None:
    own = own_backbone(nn.BatchNorm1d(12), (12,))
    x = normal(6, 12).float()
    found = own(own.init(torch.Generator()), x, Norm("transductive"))
    torch.testing.assert_close(found, nn.BatchNorm1d(12).train()(x).detach())


def test_a_norm_over_something_else_than_items_is_refused() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            # 12 numbers of 3 items as 9 rows of 4.
            return self.norm(x.reshape(-1, 4)).reshape(len(x), -1) if len(x) != 7 else self.norm(x[:2, :4])

    own = own_backbone(Mixed(), (12,))
    with pytest.raises(UserError, match=r"A batch norm of the backbone got \(2, 4\) for 7 items"):
        own(own.init(torch.Generator()), normal(7, 12).float(), Norm())
