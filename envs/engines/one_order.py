"""One order of contacts and constraint rows for `mujoco_warp`, whatever order its threads come in.

Threads of a GPU take the next free place for what they find. The order of contacts, and of the rows that come of them,
so differs from run to run, and with it how sums over them are rounded. `mujoco_warp` 4.0 has an option against that,
`deterministic`. It fills in one part of it, sums by several threads. For the order of contacts and of rows it has two
functions that do nothing yet: here they are.

All that is done is a renaming: contacts go by world, pair of geoms and number within the pair, rows by kind, object
(contacts: pair and number) and number within the object. Contacts are only put in order where something is added up
over them. Nothing comes to the host, so that the kernels can be part of a graph. `one_sum.py` has the sums.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, no_type_check

import mujoco

from metarl.envs.engines.compiling import replaced
from metarl.envs.engines.one_sum import simple_tendons, sums_in_order

wp: Any = importlib.import_module("warp")
collision_driver: Any = importlib.import_module("mujoco_warp._src.collision_driver")
constraint: Any = importlib.import_module("mujoco_warp._src.constraint")
types: Any = importlib.import_module("mujoco_warp._src.types")

CONTACT_FIELDS = (
    "dist",
    "pos",
    "frame",
    "includemargin",
    "friction",
    "solref",
    "solreffriction",
    "solimp",
    "dim",
    "geom",
    "worldid",
    "type",
    "geomcollisionid",
    "adhesion",
    "surfacevel",
)
"""What a contact of two geoms has when it has been found; its rows come later."""
ROW_FIELDS = ("type", "id", "pos", "margin", "D", "vel", "aref", "frictionloss", "Jqvel")
"""What a constraint row has when it has been made, beside its row of the Jacobian."""
FIRST_CONTACT = 5
"""The types of rows of contacts begin here; those of one world all are one kind."""
GEOM_BITS, NUMBER_BITS = 15, 14
"""Of the key that contacts are sorted by; what is left of 63 bits, 19 of them, is for the world."""


@dataclass(frozen=True)
class OneOrder:
    """What puts the sums of one model in order.

    Attributes:
        m: `mujoco_warp.Model`, with `deterministic` set to `ALL`.
        contacts: whether something is added up over contacts, and not over their rows.
        simple: whether its tendons are simple (see `simple_tendons`).
    """

    m: Any
    contacts: bool
    simple: bool

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Have all that `mujoco_warp` launches for a while come in one order."""
        contacts = sort_contacts if self.contacts else _left
        with (
            replaced(collision_driver, _sort_contacts=contacts),
            replaced(constraint, _sort_constraints=sort_rows),
            sums_in_order(self.m, simple=self.simple),
        ):
            yield


def one_order(model: mujoco.MjModel, m: Any) -> OneOrder:
    """Return what puts the sums of a model in order, and ask `mujoco_warp` for it.

    Args:
        model: the model.
        m: the same as `mujoco_warp.Model`.
    """
    m.opt.deterministic = types.DeterminismType.ALL
    alone = m.opt.cone == types.ConeType.PYRAMIDAL and not m.is_sparse and not m.opt.run_rne_postconstraint
    by_rows = alone and not (m.nsensordata or m.nflex or m.nacttrnbody or m.flg_adhesion)
    return OneOrder(m=m, contacts=not by_rows, simple=simple_tendons(model))


def _left(m: Any, d: Any) -> None:
    """Leave the contacts in the order in which they were found: their rows are sorted by what they are."""


def sort_contacts(m: Any, d: Any) -> None:
    """Put the contacts of all worlds in order.

    Args:
        m: `mujoco_warp.Model`.
        d: its `mujoco_warp.Data`, after the collisions.
    """
    count = d.naconmax
    # The sort needs as much room again.
    keys, order = wp.empty(2 * count, dtype=wp.int64), wp.empty(2 * count, dtype=wp.int32)
    wp.launch(
        _contact_keys,
        dim=count,
        inputs=[d.nacon, d.contact.worldid, d.contact.geom, d.contact.geomcollisionid],
        outputs=[keys, order],
    )
    wp.utils.radix_sort_pairs(keys, order, count)
    alone = order[:count].reshape((1, count))
    for name in CONTACT_FIELDS:
        _take(_words(getattr(d.contact, name), 1, count), alone)


def sort_rows(m: Any, d: Any) -> None:
    """Put the constraint rows of every world in order.

    Args:
        m: `mujoco_warp.Model`.
        d: its `mujoco_warp.Data`, with constraints just made.
    """
    efc, rows = d.efc, (d.nworld, d.njmax)
    order, place = wp.empty(rows, dtype=wp.int32), wp.empty(rows, dtype=wp.int32)
    wp.launch(
        _row_places,
        dim=rows,
        inputs=[d.njmax, d.nefc, efc.type, efc.id, d.contact.geom, d.contact.geomcollisionid],
        outputs=[order, place],
    )
    fields = [_words(getattr(efc, name), d.nworld, getattr(efc, name).shape[1]) for name in ROW_FIELDS]
    # A row of a sparse Jacobian stays where it is.
    jacobian, size = fields[0], 0
    if not m.is_sparse:
        jacobian, size = _words(efc.J, d.nworld, efc.J.shape[1]), efc.J.shape[2]
    kept = wp.empty((*rows, len(fields) + size), dtype=wp.int32)
    wp.launch(_rows_taken, dim=kept.shape, inputs=[d.njmax, d.nefc, order, *fields, jacobian], outputs=[kept])
    wp.launch(_rows_put, dim=kept.shape, inputs=[d.njmax, d.nefc, kept], outputs=[*fields, jacobian])
    if m.is_sparse:
        for array in (efc.J_rownnz, efc.J_rowadr):
            _take(_words(array, d.nworld, array.shape[1]), order)
    wp.launch(
        _row_addresses,
        dim=d.contact.efc_address.shape,
        inputs=[d.nacon, d.contact.worldid, place],
        outputs=[d.contact.efc_address],
    )
    if m.is_sparse:
        address, length = wp.empty_like(efc.jtdaj_adr), wp.empty_like(efc.jtdaj_nrow)
        wp.launch(
            _block_places,
            dim=rows,
            inputs=[efc.jtdaj_nblock, efc.jtdaj_adr, efc.jtdaj_nrow, place],
            outputs=[address, length],
        )
        for source, target in ((address, efc.jtdaj_adr), (length, efc.jtdaj_nrow)):
            _put(_words(source, *rows), _words(target, *rows))


def _words(array: Any, worlds: int, rows: int) -> Any:
    """Return an array as whole numbers of 32 bits, [worlds, rows, n]: what they mean does not matter to a copy."""
    size = array.size * wp.types.type_size_in_bytes(array.dtype) // (4 * worlds * rows)
    return wp.array(ptr=array.ptr, dtype=wp.int32, shape=(worlds, rows, size))


def _take(words: Any, order: Any) -> None:
    """Put rows into an order.

    Args:
        words: [worlds, rows, n].
        order: for every place the row that comes there, [worlds, rows or fewer].
    """
    taken = wp.empty_like(words)
    wp.launch(_taken, dim=words.shape, inputs=[words, order], outputs=[taken])
    _put(taken, words)


def _put(source: Any, target: Any) -> None:
    """Copy whole numbers, [worlds, rows, n], by a kernel: where launches are only noted, nothing is to be changed."""
    wp.launch(_copied, dim=source.shape, inputs=[source], outputs=[target])


@wp.kernel(enable_backward=False)
@no_type_check
def _contact_keys(
    nacon: wp.array(dtype=wp.int32),
    world: wp.array(dtype=wp.int32),
    geom: wp.array(dtype=wp.vec2i),
    number: wp.array(dtype=wp.int32),
    keys: wp.array(dtype=wp.int64),
    order: wp.array(dtype=wp.int32),
):
    i = wp.tid()
    order[i] = i
    # Room that is not used comes last.
    key = wp.int64(0x7FFFFFFFFFFFFFFF)
    if i < nacon[0]:
        key = wp.int64(world[i])
        key = (key << wp.int64(wp.static(GEOM_BITS))) | wp.int64(geom[i][0])
        key = (key << wp.int64(wp.static(GEOM_BITS))) | wp.int64(geom[i][1])
        key = (key << wp.int64(wp.static(NUMBER_BITS))) | wp.int64(number[i])
    keys[i] = key


@wp.func
@no_type_check
def _before(
    kind: wp.array2d(dtype=wp.int32),
    thing: wp.array2d(dtype=wp.int32),
    geom: wp.array(dtype=wp.vec2i),
    number: wp.array(dtype=wp.int32),
    world: int,
    a: int,
    b: int,
) -> bool:
    """Return whether row a comes before row b."""
    kind_a = wp.min(kind[world, a], wp.static(FIRST_CONTACT))
    kind_b = wp.min(kind[world, b], wp.static(FIRST_CONTACT))
    if kind_a != kind_b:
        return kind_a < kind_b
    thing_a, thing_b = thing[world, a], thing[world, b]
    if thing_a == thing_b:
        return a < b
    if kind_a == wp.static(FIRST_CONTACT):
        # Contacts may be in any order themselves.
        for i in range(2):
            if geom[thing_a][i] != geom[thing_b][i]:
                return geom[thing_a][i] < geom[thing_b][i]
        if number[thing_a] != number[thing_b]:
            return number[thing_a] < number[thing_b]
    return thing_a < thing_b


@wp.kernel(enable_backward=False)
@no_type_check
def _row_places(
    njmax: int,
    nefc: wp.array(dtype=wp.int32),
    kind: wp.array2d(dtype=wp.int32),
    thing: wp.array2d(dtype=wp.int32),
    geom: wp.array(dtype=wp.vec2i),
    number: wp.array(dtype=wp.int32),
    order: wp.array2d(dtype=wp.int32),
    place: wp.array2d(dtype=wp.int32),
):
    world, row = wp.tid()
    count = wp.min(nefc[world], njmax)
    before = wp.int32(row)
    if row < count:
        before = wp.int32(0)
        for other in range(count):
            if other != row and _before(kind, thing, geom, number, world, other, row):
                before += 1
    place[world, row] = before
    order[world, before] = row


@wp.kernel(enable_backward=False)
@no_type_check
def _rows_taken(
    njmax: int,
    nefc: wp.array(dtype=wp.int32),
    order: wp.array2d(dtype=wp.int32),
    kind: wp.array3d(dtype=wp.int32),
    thing: wp.array3d(dtype=wp.int32),
    pos: wp.array3d(dtype=wp.int32),
    margin: wp.array3d(dtype=wp.int32),
    weight: wp.array3d(dtype=wp.int32),
    vel: wp.array3d(dtype=wp.int32),
    aref: wp.array3d(dtype=wp.int32),
    loss: wp.array3d(dtype=wp.int32),
    speed: wp.array3d(dtype=wp.int32),
    jacobian: wp.array3d(dtype=wp.int32),
    kept: wp.array3d(dtype=wp.int32),
):
    world, row, i = wp.tid()
    if row >= wp.min(nefc[world], njmax):
        return
    source = order[world, row]
    if i == 0:
        kept[world, row, i] = kind[world, source, 0]
    elif i == 1:
        kept[world, row, i] = thing[world, source, 0]
    elif i == 2:
        kept[world, row, i] = pos[world, source, 0]
    elif i == 3:
        kept[world, row, i] = margin[world, source, 0]
    elif i == 4:
        kept[world, row, i] = weight[world, source, 0]
    elif i == 5:
        kept[world, row, i] = vel[world, source, 0]
    elif i == 6:
        kept[world, row, i] = aref[world, source, 0]
    elif i == 7:
        kept[world, row, i] = loss[world, source, 0]
    elif i == 8:
        kept[world, row, i] = speed[world, source, 0]
    else:
        kept[world, row, i] = jacobian[world, source, i - 9]


@wp.kernel(enable_backward=False)
@no_type_check
def _rows_put(
    njmax: int,
    nefc: wp.array(dtype=wp.int32),
    kept: wp.array3d(dtype=wp.int32),
    kind: wp.array3d(dtype=wp.int32),
    thing: wp.array3d(dtype=wp.int32),
    pos: wp.array3d(dtype=wp.int32),
    margin: wp.array3d(dtype=wp.int32),
    weight: wp.array3d(dtype=wp.int32),
    vel: wp.array3d(dtype=wp.int32),
    aref: wp.array3d(dtype=wp.int32),
    loss: wp.array3d(dtype=wp.int32),
    speed: wp.array3d(dtype=wp.int32),
    jacobian: wp.array3d(dtype=wp.int32),
):
    world, row, i = wp.tid()
    if row >= wp.min(nefc[world], njmax):
        return
    if i == 0:
        kind[world, row, 0] = kept[world, row, i]
    elif i == 1:
        thing[world, row, 0] = kept[world, row, i]
    elif i == 2:
        pos[world, row, 0] = kept[world, row, i]
    elif i == 3:
        margin[world, row, 0] = kept[world, row, i]
    elif i == 4:
        weight[world, row, 0] = kept[world, row, i]
    elif i == 5:
        vel[world, row, 0] = kept[world, row, i]
    elif i == 6:
        aref[world, row, 0] = kept[world, row, i]
    elif i == 7:
        loss[world, row, 0] = kept[world, row, i]
    elif i == 8:
        speed[world, row, 0] = kept[world, row, i]
    else:
        jacobian[world, row, i - 9] = kept[world, row, i]


@wp.kernel(enable_backward=False)
@no_type_check
def _taken(
    words: wp.array3d(dtype=wp.int32),
    order: wp.array2d(dtype=wp.int32),
    taken: wp.array3d(dtype=wp.int32),
):
    world, row, i = wp.tid()
    source = wp.int32(row)
    if row < order.shape[1]:
        source = order[world, row]
    taken[world, row, i] = words[world, source, i]


@wp.kernel(enable_backward=False)
@no_type_check
def _copied(source: wp.array3d(dtype=wp.int32), target: wp.array3d(dtype=wp.int32)):
    world, row, i = wp.tid()
    target[world, row, i] = source[world, row, i]


@wp.kernel(enable_backward=False)
@no_type_check
def _row_addresses(
    nacon: wp.array(dtype=wp.int32),
    world: wp.array(dtype=wp.int32),
    place: wp.array2d(dtype=wp.int32),
    address: wp.array2d(dtype=wp.int32),
):
    contact, i = wp.tid()
    if contact < nacon[0] and address[contact, i] >= 0:
        address[contact, i] = place[world[contact], address[contact, i]]


@wp.kernel(enable_backward=False)
@no_type_check
def _block_places(
    count: wp.array(dtype=wp.int32),
    first: wp.array2d(dtype=wp.int32),
    length: wp.array2d(dtype=wp.int32),
    place: wp.array2d(dtype=wp.int32),
    firsts: wp.array2d(dtype=wp.int32),
    lengths: wp.array2d(dtype=wp.int32),
):
    world, block = wp.tid()
    if block < count[world]:
        row = place[world, first[world, block]]
        before = wp.int32(0)
        for other in range(count[world]):
            if place[world, first[world, other]] < row:
                before += 1
        firsts[world, before] = row
        lengths[world, before] = length[world, block]
