"""Task families, one file a robot or problem; `FILES` is the table of them.

A file ends with `FAMILIES`: all that it defines, the default variant of every family before its others.
"""

FILES = (
    "point_nav",
    "half_cheetah",
    "ant",
    "ant_goal",
    "humanoid",
    "walker2d",
    "hopper",
    "swimmer",
    "reacher",
    "push_shape",
    "grasp_shape",
    "reach_over",
    "ant_terrain",
    "half_cheetah_terrain",
    "bandit",
    "tabular_mdp",
)
"""Files of this folder, in the order of `metarl list`."""
