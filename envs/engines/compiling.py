"""Kernels compiled ahead: all that a robot needs, side by side, with a line that says how far it is.

Warp compiles kernels by modules, each when one of its kernels is launched first: one after the other, which takes a
minute for a robot, in silence. Here launches are first noted and not made; then the modules that they need are compiled
in threads, which works because the compiler lets go of Python's lock. Warp's cache has them from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from metarl.devices import resolve_threads
from metarl.run.progress import telling
from metarl.system import locked

MANY = 2**31 - 1
"""Worlds, more than there can be."""
LOCKS = "metarl-locks"
"""Folder in Warp's cache: of processes that need the same module, one compiles it and the others wait."""


@dataclass(frozen=True)
class Needed:
    """A module of kernels, as one kind of launch needs it."""

    module: Any
    """Warp's `Module`."""
    block_dim: int
    """Threads of a block, for which it is compiled."""

    def in_cache(self, warp: ModuleType, device: torch.device) -> bool:
        """Tell whether it has been compiled for the device, by this process or an earlier one."""
        folder = Path(warp.config.kernel_cache_dir) / self.module.get_module_identifier(self.block_dim)
        where = warp.device_from_torch(device)
        names = (
            self.module._get_compile_output_name(where, block_dim=self.block_dim),
            self.module._get_meta_name(block_dim=self.block_dim),
        )
        return all((folder / name).exists() for name in names)

    def load(self, warp: ModuleType, device: torch.device) -> None:
        """Load it on the device; where it has not been compiled, one process does so."""
        where = warp.device_from_torch(device)
        if self.in_cache(warp, device):
            self.module.load(where, self.block_dim)
            return
        locks = Path(warp.config.kernel_cache_dir) / LOCKS
        locks.mkdir(exist_ok=True)
        lock = locks / self.module.get_module_identifier(self.block_dim)
        with locked(lock):
            self.module.load(where, self.block_dim)


def needed(warp: ModuleType, launches: Iterable[Callable[[], None]]) -> list[Needed]:
    """Return the modules of kernels that functions launch, in their order; nothing is launched.

    Args:
        warp: the package.
        launches: functions that launch kernels by Warp, and read no result of theirs on the host.
    """
    found: dict[Needed, None] = {}

    def note(module: Any, device: Any, block_dim: int | None = None, *_: Any, **__: Any) -> None:
        # Warp launches nothing where a module has nothing to run.
        found[Needed(module, block_dim or module.options["block_dim"])] = None

    # On a GPU the compiled kernel is asked how large its blocks may be. Of launches that are not made no one sees it.
    def suggested(kernel: Any, device: Any = None) -> tuple[int, int]:
        if warp.get_device(device).is_cuda:
            note(kernel.module, device)
        return kernel.module.options["block_dim"], 1

    # What loops and branches look at is computed by no one here: all of them are run, once.
    def once(condition: Any, while_body: Callable[..., None], stream: Any = None, **arguments: Any) -> None:
        while_body(**arguments)

    def both(condition: Any, on_true: Any = None, on_false: Any = None, stream: Any = None, **arguments: Any) -> None:
        for branch in (on_true, on_false):
            if branch is not None:
                branch(**arguments)

    shown = {"capture_while": once, "capture_if": both, "get_suggested_block_size": suggested}
    with replaced(warp.Module, load=note), replaced(warp, **shown):
        for launch in launches:
            launch()
    return list(found)


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Give something other attributes for a while."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def for_any_number_of_worlds(mujoco_warp: ModuleType) -> Iterator[None]:
    """Have robots' kernels be the same for any number of worlds, where every field has one row or one a world.

    For `mujoco_warp` 4.0 the number of rows is a constant of one kernel, which looks for pairs of geoms that are near,
    and takes row `world % number`: with any larger number that is `world`.
    """
    driver = mujoco_warp._src.collision_driver
    made = driver._nxn_broadphase

    def same(kind: int, *rows: int) -> Any:
        return made(kind, *(MANY if row > 1 else row for row in rows))

    with replaced(driver, _nxn_broadphase=same):
        yield


def load_all(warp: ModuleType, modules: Iterable[Needed], device: torch.device, robot: str) -> int:
    """Load modules on a device, those that are not in Warp's cache compiled on all cores; return how many these were.

    Standard error tells of compiling, once for each robot and kind of GPU.

    Args:
        warp: the package.
        modules: from `needed`.
        device: where they will run.
        robot: whose they are, for the line.

    Raises:
        Exception: a module cannot be compiled; those that have not begun are left.
    """
    modules = list(modules)
    missing = [module for module in modules if not module.in_cache(warp, device)]
    # Those of many kernels take longest. Besides, source is written by one thread at a time, where modules that
    # factorise matrices take seconds: they have one kernel each.
    missing.sort(key=lambda entry: len(entry.module.kernels), reverse=True)
    cores = resolve_threads(0)
    title = f"compiling the kernels of {robot} for the GPU engine, once for each robot"
    with telling(title if missing else "", len(missing)) as tell, ThreadPoolExecutor(cores) as pool:
        # Those that are there take no time, and must not wait for the others.
        waiting = {pool.submit(module.load, warp, device): module for module in missing}
        try:
            for done in as_completed(waiting):
                done.result()
                tell(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for module in modules:
        module.load(warp, device)
    return len(missing)
