"""One order of contacts and constraint rows for `mujoco_warp`, whatever order its threads come in.

Threads of a GPU take the next free place for what they find. The order of contacts, and of the rows that come of them,
so differs from run to run, and with it how sums over them are rounded. `mujoco_warp` 4.0 has an option against that,
`deterministic`. It fills in one part of it, sums by several threads. For the order of contacts and of rows it has two
functions that do nothing yet: here they are.

All that is done is a renaming: contacts go by world, pair of geoms and number within the pair, rows by kind, object and
number within the object. Nothing comes to the host, so that the kernels can be part of a graph.
"""

from __future__ import annotations

import importlib
from typing import Any, no_type_check

wp: Any = importlib.import_module("warp")
collision_driver: Any = importlib.import_module("mujoco_warp._src.collision_driver")
constraint: Any = importlib.import_module("mujoco_warp._src.constraint")

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


def fill_in() -> None:
    """Have `mujoco_warp` put contacts and rows in order where its option asks for it."""
    collision_driver._sort_contacts = sort_contacts
    constraint._sort_constraints = sort_rows


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
    """Put the constraint rows of every world in order, after its contacts are.

    Args:
        m: `mujoco_warp.Model`.
        d: its `mujoco_warp.Data`, with constraints just made.
    """
    efc, rows = d.efc, (d.nworld, d.njmax)
    order, place = wp.empty(rows, dtype=wp.int32), wp.empty(rows, dtype=wp.int32)
    wp.launch(_row_places, dim=rows, inputs=[d.njmax, d.nefc, efc.type, efc.id], outputs=[order, place])
    for name in (*ROW_FIELDS, *(("J_rownnz", "J_rowadr") if m.is_sparse else ("J",))):
        array = getattr(efc, name)
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


@wp.kernel(enable_backward=False)
@no_type_check
def _row_places(
    njmax: int,
    nefc: wp.array(dtype=wp.int32),
    kind: wp.array2d(dtype=wp.int32),
    thing: wp.array2d(dtype=wp.int32),
    order: wp.array2d(dtype=wp.int32),
    place: wp.array2d(dtype=wp.int32),
):
    world, row = wp.tid()
    count = wp.min(nefc[world], njmax)
    before = wp.int32(row)
    if row < count:
        before = wp.int32(0)
        mine = wp.min(kind[world, row], wp.static(FIRST_CONTACT))
        for other in range(count):
            theirs = wp.min(kind[world, other], wp.static(FIRST_CONTACT))
            if theirs < mine:
                before += 1
            elif theirs == mine:
                same = thing[world, other] == thing[world, row]
                if thing[world, other] < thing[world, row] or (same and other < row):
                    before += 1
    place[world, row] = before
    order[world, before] = row


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
