"""The encoder of pictures against torch's own layers, with and without task axes; what stays in its place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import conv2d, linear, relu

from metarl.nets.memory import make_core
from metarl.nets.pictures import Encoder, Seeing, SeeingCore, convolve, pixels_in_bounds
from metarl.nets.policy import MLP
from metarl.types import Params, Picture
from tests.helpers.toys import DOUBLE, assert_params_close, normal, seeded

COLOUR = Picture(first=1, shape=(9, 8, 3), channels=(2,), largest=255.0)
GREY = Picture(first=219, shape=(8, 17), channels=(), largest=1.0)
ENCODER = Encoder(360, (COLOUR, GREY))
"""A number, a picture, two numbers, a picture, five numbers."""


def drawn(encoder: Encoder = ENCODER, tasks: tuple[int, ...] = ()) -> Params:
    """Return parameters of which none is special, for every task its own."""
    params = encoder.init(seeded(), DOUBLE)
    return {
        name: value + 0.1 * normal(*tasks, *value.shape, seed=seed) for seed, (name, value) in enumerate(params.items())
    }


def by_torch(params: Params, rows: Tensor) -> Tensor:
    """Compute the same for one task and rows [N, I] by torch's own functions."""

    def features(x: Tensor, name: str, convolutions: int) -> Tensor:
        for layer in range(convolutions):
            weight, bias = (params[f"{name}_conv{layer}_{part}"] for part in "wb")
            x = relu(conv2d(x, weight, bias, stride=2, padding=1))
        return relu(linear(x.flatten(1), params[f"{name}_linear_w"].T, params[f"{name}_linear_b"]))

    colour = rows[:, 1:217].view(-1, 9, 8, 3).permute(0, 3, 1, 2)
    grey = rows[:, 219:355].view(-1, 1, 8, 17)
    parts = (rows[:, :1], features(colour, "picture0", 2), rows[:, 217:219], features(grey, "picture1", 2))
    return torch.cat((*parts, rows[:, 355:]), 1)


def losses(encode: Callable[[Params, Tensor], Tensor], rows: Tensor) -> Callable[[Params], Tensor]:
    return lambda params: encode(params, rows).tanh().square().sum()


def curved(loss: Callable[[Params], Tensor], params: Params, tangent: Params) -> tuple[Params, Params]:
    """Return gradient and Hessian-vector product by autograd, as the inner loop takes them."""
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    first = torch.autograd.grad(loss(leaves), list(leaves.values()), create_graph=True)
    along = sum((g * v).sum() for g, v in zip(first, tangent.values(), strict=True))
    assert isinstance(along, Tensor)
    second = torch.autograd.grad(along, list(leaves.values()))
    return (
        {name: g.detach() for name, g in zip(leaves, first, strict=True)},
        dict(zip(leaves, second, strict=True)),
    )


def test_it_is_what_torch_computes_in_value_gradient_and_curvature_for_one_task_and_for_many() -> None:
    params, tangent = drawn(tasks=(3,)), drawn(tasks=(3,))
    rows = normal(3, 4, 360, seed=9)
    assert ENCODER.outputs == 1 + 64 + 2 + 64 + 5
    together = ENCODER(params, rows)
    first, second = curved(losses(ENCODER, rows), params, tangent)
    for task in range(3):
        own, its = ({name: value[task] for name, value in group.items()} for group in (params, tangent))
        expected = by_torch(own, rows[task])
        torch.testing.assert_close(together[task], expected)
        torch.testing.assert_close(ENCODER(own, rows[task]), expected)
        gradient, product = curved(losses(by_torch, rows[task]), own, its)
        assert all(bool(value.abs().sum() > 0.0) for value in product.values())
        alone = curved(losses(ENCODER, rows[task]), own, its)
        for found, wanted in zip(alone, (gradient, product), strict=True):
            assert_params_close(found, wanted, atol=1e-9)
        for found, wanted in ((first, gradient), (second, product)):
            assert_params_close({name: value[task] for name, value in found.items()}, wanted, atol=1e-9)


def test_it_is_the_same_under_vmap() -> None:
    params, tangent = drawn(tasks=(3,)), drawn(tasks=(3,))
    rows = normal(3, 4, 360, seed=9)

    def product(own: Params, its: Params, seen: Tensor) -> tuple[Tensor, Params]:
        def along(at: Params) -> Tensor:
            gradient = grad(losses(ENCODER, seen))(at)
            return torch.stack([(gradient[name] * its[name]).sum() for name in its]).sum()

        return ENCODER(own, seen), grad(along)(own)

    values, products = vmap(product)(params, tangent, rows)
    torch.testing.assert_close(values, ENCODER(params, rows))
    assert_params_close(products, curved(losses(ENCODER, rows), params, tangent)[1], atol=1e-9)


@pytest.mark.parametrize("tasks", [(), (2,), (2, 3)])
@pytest.mark.parametrize("own", [(), (4,), (4, 5)])
def test_a_convolution_has_any_leading_axes(tasks: tuple[int, ...], own: tuple[int, ...]) -> None:
    x = normal(*tasks, *own, 2, 5, 6, seed=1)
    weight, bias = normal(*tasks, 7, 2, 3, 3, seed=2), normal(*tasks, 7, seed=3)
    found = convolve(x, weight, bias)
    assert found.shape == (*tasks, *own, 7, 3, 3)
    for here, w, b, y in zip(
        x.reshape(-1, *own, 2, 5, 6) if tasks else x[None],
        weight.reshape(-1, 7, 2, 3, 3),
        bias.reshape(-1, 7),
        found.reshape(-1, *own, 7, 3, 3) if tasks else found[None],
        strict=True,
    ):
        flat = conv2d(here.reshape(-1, 2, 5, 6), w, b, stride=2, padding=1)
        torch.testing.assert_close(y.reshape(flat.shape), flat)
    if own:
        assert convolve(x[..., :0, :, :, :], weight, bias).shape == found[..., :0, :, :, :].shape


@pytest.mark.parametrize(
    ("shape", "channels", "names", "left"),
    [
        ((16, 16, 3), (2,), 2, 32 * 4 * 4),
        ((4, 84, 84), (0,), 4, 32 * 6 * 6),
        ((3, 20, 9, 2), (0, 3), 2, 32 * 5 * 3),
        ((8, 200), (), 5, 32 * 1 * 7),
        ((1, 1), (), 2, 32),
    ],
)
def test_whatever_the_layout_a_picture_becomes_64_features(
    shape: tuple[int, ...], channels: tuple[int, ...], names: int, left: int
) -> None:
    picture = Picture(first=0, shape=shape, channels=channels, largest=1.0)
    encoder = Encoder(picture.size, (picture,))
    params = encoder.init(seeded())
    assert sum(name.endswith("_w") and "conv" in name for name in params) == names
    assert params["picture0_linear_w"].shape == (left, 64)
    rows = torch.rand(2, picture.size, generator=seeded())
    assert encoder(params, rows).shape == (2, encoder.outputs) == (2, 64)
    coarse = encoder.coarse(rows[None])
    assert coarse.shape == (1, 2, encoder.coarse_outputs)
    if max(shape) > 8:
        # Means of equal parts where the sides are whole multiples of 4.
        torch.testing.assert_close(coarse.mean(), rows.mean(), atol=0.02, rtol=0.0)


def test_a_stack_of_pictures_has_the_channels_of_all() -> None:
    stack = Picture(first=0, shape=(2, 8, 8, 3), channels=(0, 3), largest=1.0)
    rows = torch.arange(384.0)[None]
    _, pixels, _ = Encoder(384, (stack,))._parts(rows)
    assert pixels.shape == (1, 6, 8, 8)
    for number in range(2):
        for channel in range(3):
            expected = rows.view(2, 8, 8, 3)[number, :, :, channel]
            assert torch.equal(pixels[0, 3 * number + channel], expected)


def test_pixels_are_shown_by_their_bounds_and_other_numbers_as_they_were() -> None:
    observations = torch.full((2, 3, 360), 0.5)
    observations[..., 1:217] = 51.0
    shown = pixels_in_bounds(torch.zeros_like(observations), observations, (COLOUR, GREY))
    assert torch.equal(shown[..., 1:217], torch.full((2, 3, 216), 0.2))
    assert torch.equal(shown[..., 219:355], torch.full((2, 3, 136), 0.5))
    assert not shown[..., [0, 217, 218, 355, 359]].any()
    coarse = ENCODER.coarse(shown)
    assert coarse.shape == (2, 3, ENCODER.coarse_outputs) == (2, 3, 8 + 48 + 16)
    torch.testing.assert_close(coarse[..., 1:49], torch.full((2, 3, 48), 0.2))
    assert pixels_in_bounds(shown, observations, ()) is shown


def test_a_network_behind_it_draws_first_as_it_would_alone() -> None:
    network = MLP(inputs=ENCODER.outputs, hidden=(5,), outputs=2)
    params = Seeing(encoder=ENCODER, network=network).init(seeded(3))
    for name, value in network.init(seeded(3)).items():
        assert torch.equal(params[name], value)


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_a_core_behind_it_does_one_by_one_what_it_does_at_once(name: str) -> None:
    core = make_core(name, inputs=ENCODER.outputs, width=6, layers=1, context=4, generator=seeded())  # pyright: ignore[reportArgumentType]
    seeing = SeeingCore(ENCODER, core, seeded())
    rows = torch.rand(3, 4, 360, generator=seeded())
    features, memory = [], seeing.begin(3)
    for moment in rows.unbind(1):
        found, memory = seeing.step(moment, memory)
        features.append(found)
    torch.testing.assert_close(torch.stack(features, 1), seeing(rows), atol=1e-5, rtol=1e-4)
    assert {key.split(".")[0] for key in seeing.state_dict()} == {"core", "weights"}
