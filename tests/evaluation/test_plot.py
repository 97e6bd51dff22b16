from __future__ import annotations

from dataclasses import replace

from metarl.evaluation.plot import draw
from metarl.evaluation.summary import summarise
from tests.helpers.curves import FAMILY, entry, made_up


def test_the_axis_shows_few_episodes_beside_many() -> None:
    (axes,) = draw(summarise(made_up())).axes
    assert (axes.get_xscale(), list(axes.get_xticks())) == ("linear", [0, 5, 10])
    assert axes.get_title(loc="left") == f"maml-trpo adapts to tasks of {FAMILY.full_name}"

    rl2 = entry("rl2", [[-9.0, -8.0, -7.0, -6.0], [-3.0, -4.0, -5.0, -6.0]], pools=False)
    (axes,) = draw(summarise(replace(made_up(), entries=(*made_up().entries, rl2)))).axes
    assert (axes.get_xscale(), sorted(axes.get_xticks())) == ("symlog", [0, 1, 5, 10])
    assert axes.get_title(loc="left") == f"maml-trpo and rl2 adapt to tasks of {FAMILY.full_name}"
    place = axes.transData.transform([(x, 0.0) for x in (0, 1, 5, 10)])[:, 0]
    widths = (place[1:] - place[:-1]) / (place[-1] - place[0])
    assert (widths > 0.1).all()
    # Ticks that would run into one another are left out.
    long = entry("rl2", [[0.0] * 4] * 10, pools=False)
    maml = entry("maml-trpo", [[0.0] * 4] * 20)
    (axes,) = draw(summarise(replace(made_up(), entries=(maml, long)))).axes
    ticks = sorted(axes.get_xticks())
    assert (ticks[:2], ticks[-1]) == ([0, 1], 95)
    place = axes.transData.transform([(x, 0.0) for x in ticks])[:, 0]
    assert (place[1:] - place[:-1]).min() > 0.04 * (place[-1] - place[0])
