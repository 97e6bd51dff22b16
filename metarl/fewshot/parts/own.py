"""Backbones of one's own: torch modules, and objects that do what a `Backbone` does.

A module takes items [N, *item], float32 numbers as networks get them, and returns features [N, F] (or [N, F, 1, 1]).

Weights     the module's own are the initial ones; it is copied and never changed. Where a callable is given that makes
            one, its weights are drawn under the run's seed. Frozen, or with `requires_grad` False, they stay as they
            are.
Mode        eval: dropout is off.
Batch norm  of a frozen module with the statistics that it has; else over what the policy of the run says, as in the
            other backbones, and then the statistics that it came with are not used.
Tasks       with parameters of their own are computed one after the other: what torch.vmap cannot do works too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from metarl.errors import UserError
from metarl.fewshot.parts.backbones import Backbone
from metarl.fewshot.parts.module_norms import Pass, swap_norms
from metarl.fewshot.parts.norms import Moment, Norm
from metarl.fewshot.parts.trying import Explained, copied, made_up, near, probed
from metarl.problems import in_words
from metarl.types import Params

OWN = "module "
"""What the name begins with that a run has for a backbone of one's own."""
PREFIX = "backbone."
"""Before the names of its parameters, so that none is that of a head."""


class Given(str):
    """The name under which a run keeps a backbone that was given to it, with that backbone.

    Args:
        name: what settings and checkpoints have.
        thing: a module, a callable that makes one, or a `Backbone`.
    """

    thing: Any

    def __new__(cls, name: str, thing: Any) -> Given:
        """Return the name with the backbone."""
        made = super().__new__(cls, name)
        made.thing = thing
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy both."""
        return type(self), (str(self), self.thing)


def name_of(thing: Any) -> str:
    """Return what a run calls a backbone that was given to it.

    Raises:
        UserError: it cannot be one.
    """
    if not isinstance(thing, nn.Module | Backbone) and not callable(thing):
        raise UserError(
            f"Got a backbone of the type {type(thing).__name__}. Give a name, a torch module, or a callable that makes "
            "one."
        )
    return OWN + str(getattr(thing, "__qualname__", type(thing).__qualname__))


def is_own(name: str) -> bool:
    """Tell whether a run's backbone is one's own: given in Python, or by an address."""
    return name.startswith(OWN) or ":" in name


def own_backbone(thing: Any, item_shape: tuple[int, ...], *, freeze: bool = False, seed: int = 0) -> OwnBackbone:
    """Return a backbone of one's own, tried on a few items.

    Args:
        thing: a torch module, a callable that makes one, or an object that does what a `Backbone` does.
        item_shape: of one item.
        freeze: its weights stay as they are.
        seed: under which a callable draws weights.

    Raises:
        UserError: it fails on such items, or does not give features that depend on an item alone.
    """
    if not isinstance(thing, nn.Module) and (isinstance(thing, type) or not isinstance(thing, Backbone)):
        thing = _called(thing, seed)
    if isinstance(thing, nn.Module):
        return ModuleBackbone(thing, item_shape, freeze=freeze)
    if freeze:
        raise UserError("Got freeze_backbone for a backbone that is no torch module. Give the module itself.")
    return ObjectBackbone(thing, item_shape)


def _called(make: Callable[[], Any], seed: int) -> Any:
    """Return what a callable makes; its randomness is torch's global one, which is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Somebody's code may raise anything.
        try:
            made = make()
        except (UserError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise UserError(
                f"{name_of(make)} failed, {in_words(error)}. It is called without arguments, to return a module."
            ) from error
    if not isinstance(made, nn.Module | Backbone) or isinstance(made, type):
        raise UserError(f"{name_of(make)} returned {type(made).__name__}. It must return a torch module.")
    return made


def refuse_once_differentiable(backbone: Backbone, instead: str) -> None:
    """Refuse a backbone for a learner that needs second derivatives.

    Args:
        backbone: any.
        instead: what can be used in its place.

    Raises:
        UserError: it is one's own, and something in it has none.
    """
    if isinstance(backbone, OwnBackbone) and backbone.once:
        raise UserError(f"{backbone.name} has no second derivatives, {backbone.once}. Use {instead}.")


class OwnBackbone:
    """What backbones of one's own have in common (see `metarl.fewshot.parts.backbones.Backbone`)."""

    name: str
    item_shape: tuple[int, ...]
    features: int
    norms: int
    once: str = ""
    """Why second derivatives cannot be taken; empty where they can."""

    def init(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Params:
        """Return the initial parameters."""
        return {PREFIX + name: value.to(dtype, copy=True) for name, value in self._initial(generator, dtype).items()}

    def __call__(
        self, params: Params, x: Float[Tensor, "*M n *item"], norm: Norm, *, by_task: bool = False
    ) -> Float[Tensor, "*M n F"]:
        """Compute features; of all that it is given, only its own parameters count."""
        own = {name.removeprefix(PREFIX): value for name, value in params.items() if name.startswith(PREFIX)}
        if not by_task:
            return self._features(own, x, norm)
        features, seen = [], []
        for task in range(len(x)):
            seen.append([])
            mine = Norm(norm.policy, norm.support, norm.averages, None if norm.seen is None else seen[-1], norm.ranks)
            features.append(self._features({name: value[task] for name, value in own.items()}, x[task], mine))
        if norm.seen is not None:
            norm.seen.extend(Moment(*map(torch.stack, zip(*layer, strict=True))) for layer in zip(*seen, strict=True))
        return torch.stack(features)

    def check_vmap(self) -> None:
        """Refuse what torch.vmap cannot do, or does wrong.

        Raises:
            UserError: with the executor to be used in its place.
        """
        params = self.init(torch.Generator().manual_seed(0))
        items = torch.stack((made_up(self.item_shape), made_up(self.item_shape).flip(0) * 2.0))

        def loss(params: Params, x: Tensor) -> Tensor:
            return self(params, x, Norm()).square().mean()

        # Whatever it is that vmap does not take.
        try:
            found = vmap(grad(loss), (None, 0))(params, items)
        except Exception as error:
            raise UserError(f"{self.name} does not work under vmap, {in_words(error)}. Use --executor loop.") from error
        alone = [grad(loss)(params, x) for x in items]
        if not all(near(value, torch.stack([part[name] for part in alone])) for name, value in found.items()):
            raise UserError(f"{self.name} has other gradients under vmap than without. Use --executor loop.")

    # -- a run's checkpoint -------------------------------------------------------------------------------------------

    def state_dict(self, params: Params) -> dict[str, Any]:
        """Return what is kept beside a learner's parameters: weights that stay, and features to be known again by."""
        held = {name: value.detach().cpu().clone() for name, value in self._held().items()}
        return {"held": held, "features": self._mark(params)}

    def load_state_dict(self, state: dict[str, Any], params: Params) -> None:
        """Restore what is kept.

        Args:
            state: `state_dict()`.
            params: the learner's, as they were then.

        Raises:
            ValueError: weights have other names or shapes, or the network computes something else than it did.
        """
        held, stored = self._held(), state["held"]
        if not all(isinstance(value, Tensor) for value in stored.values()):
            raise ValueError(f"the weights that {self.name} held then are no tensors")
        shapes = [{name: tuple(value.shape) for name, value in part.items()} for part in (held, stored)]
        if shapes[0] != shapes[1]:
            differ = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))
            raise ValueError(f"the backbone has other weights than {self.name} had then, such as {differ[0][0]}")
        for name, value in held.items():
            value.copy_(stored[name])
        now, then = self._mark(params), state["features"]
        if now.shape != then.shape or not near(now, then):
            raise ValueError(
                f"with the weights of then {self.name} computes other features than it did: it was changed"
            )

    @torch.no_grad()
    def _mark(self, params: Params) -> Tensor:
        """Return features of made-up items; under a policy that needs nothing but them."""
        device = next(iter(params.values())).device if params else torch.device("cpu")
        return self(params, made_up(self.item_shape).to(device), Norm("transductive")).float().cpu()

    # -- what the two kinds have for themselves -----------------------------------------------------------------------

    def _initial(self, generator: torch.Generator, dtype: torch.dtype) -> Params:
        raise NotImplementedError

    def _features(self, own: Params, x: Tensor, norm: Norm) -> Tensor:
        raise NotImplementedError

    def _held(self) -> dict[str, Tensor]:
        return {}


class ObjectBackbone(OwnBackbone):
    """An object that does what a `Backbone` does; its parameters are named apart from those of heads.

    Args:
        thing: the object.
        item_shape: of one item.
    """

    def __init__(self, thing: Backbone, item_shape: tuple[int, ...]) -> None:
        self.thing, self.name = thing, name_of(thing)
        self._shape = tuple(thing.item_shape)
        # It says its shape: axes of length 1 more or less are no other items.
        if [size for size in self._shape if size != 1] != [size for size in item_shape if size != 1]:
            raise UserError(
                f"Got {self.name} for items of the shape {tuple(thing.item_shape)}, and the data has {item_shape}. "
                "Give one for these."
            )
        self.item_shape, self.features, self.norms = item_shape, thing.features, thing.norms
        params = self.init(torch.Generator().manual_seed(0))
        items = made_up(item_shape)
        for x in (items, items[None]):
            with torch.no_grad(), Explained(self.name, x):
                found = self(params, x, Norm())
            if found.shape != (*x.shape[: x.dim() - len(item_shape)], self.features):
                raise UserError(
                    f"{self.name} gave {tuple(found.shape)} for items {tuple(x.shape)}. Give [..., {self.features}], "
                    "as its `features` says."
                )

    def _initial(self, generator: torch.Generator, dtype: torch.dtype) -> Params:
        return self.thing.init(generator, dtype)

    def _features(self, own: Params, x: Tensor, norm: Norm) -> Tensor:
        return self.thing(own, x.reshape(*x.shape[: x.dim() - len(self.item_shape)], *self._shape), norm)


class ModuleBackbone(OwnBackbone):
    """A torch module (see the module's text).

    Args:
        module: it is copied.
        item_shape: of one item.
        freeze: all of its weights stay as they are.

    Raises:
        UserError: see `own_backbone`.
    """

    def __init__(self, module: nn.Module, item_shape: tuple[int, ...], *, freeze: bool = False) -> None:
        self.name, self.item_shape = name_of(module), item_shape
        own = copied(module, self.name)
        found = probed(own, self.name, made_up(item_shape))
        self.features, self._clones = found.shape[1], not self._leaves_items(own)
        self.dropouts = sum(isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 for part in own.modules())
        self.present = Pass()
        trained = [] if freeze else [name for name, value in own.named_parameters() if value.requires_grad]
        self.module = swap_norms(own, self.present) if trained else own
        tensors = {name: value.detach().clone() for name, value in self._tensors().items()}
        self._trained = {name: tensors.pop(name) for name in trained}
        self._kept = tensors
        self._there: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}
        self.norms = 0
        if trained:
            with torch.no_grad(), Explained(self.name, made_up(item_shape)):
                self._features(self._trained, made_up(item_shape), Norm("transductive"))
            self.norms = self.present.count
            self.once = self._differentiated()

    def _tensors(self) -> dict[str, Tensor]:
        return {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}

    def _leaves_items(self, own: nn.Module) -> bool:
        items = made_up(self.item_shape)
        with torch.no_grad():
            own(items)
        return torch.equal(items, made_up(self.item_shape))

    def _differentiated(self) -> str:
        """Return why second derivatives cannot be taken; refuse a module without first ones."""
        leaves = {name: value.clone().requires_grad_() for name, value in self._trained.items()}
        with torch.enable_grad(), Explained(self.name, made_up(self.item_shape)):
            loss = self._features(leaves, made_up(self.item_shape), Norm("transductive")).square().mean()
            if not loss.requires_grad:
                raise UserError(
                    f"{self.name} has trainable weights, and its features have no gradient: its forward detaches them, "
                    "or runs under no_grad. Take that out, or freeze it (freeze_backbone=True)."
                )
            values = list(leaves.values())
            gradient = torch.autograd.grad(loss, values, create_graph=True, allow_unused=True)
        parts = [part.square().sum() for part in gradient if part is not None and part.requires_grad]
        try:
            if parts:
                torch.autograd.grad(sum(parts, torch.zeros(())), values, allow_unused=True)
        except RuntimeError as error:
            return in_words(error)
        return ""

    def _initial(self, generator: torch.Generator, dtype: torch.dtype) -> Params:
        return self._trained

    def _held(self) -> dict[str, Tensor]:
        # Copies elsewhere are of what is now to be changed.
        self._there.clear()
        return self._kept

    def _on(self, x: Tensor) -> dict[str, Tensor]:
        """Return the weights that stay, where the items lie."""
        place = (x.device, x.dtype)
        if place not in self._there:
            self._there[place] = {
                name: value.to(x.device, x.dtype if value.is_floating_point() else value.dtype)
                for name, value in self._kept.items()
            }
        return self._there[place]

    def _features(self, own: Params, x: Tensor, norm: Norm) -> Tensor:
        leading = x.dim() > len(self.item_shape) + 1
        flat = x.flatten(0, 1) if leading else x
        present = self.present
        present.norm, present.leading, present.count = norm, leading, 0
        present.tasks, present.items = x.shape[:2] if leading else (1, x.shape[0])
        tensors = {**self._on(x), **own}
        found = functional_call(self.module, tensors, (flat.clone() if self._clones else flat,)).flatten(1)
        return found.unflatten(0, x.shape[:2]) if leading else found
