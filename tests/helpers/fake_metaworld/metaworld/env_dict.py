"""Fifty classes under Meta-World's names, all of them a hand that moves to a goal."""

from collections import OrderedDict

from .sawyer_xyz_env import SawyerXYZEnv

NAMES = """
    assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press
    button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open
    door-unlock hand-insert drawer-close drawer-open faucet-open faucet-close hammer handle-press-side handle-press
    handle-pull-side handle-pull lever-pull pick-place-wall pick-out-of-hole pick-place plate-slide plate-slide-side
    plate-slide-back plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push stick-pull push push-wall
    push-back reach reach-wall shelf-place sweep-into sweep window-open window-close
"""
ALL_V3_ENVIRONMENTS = OrderedDict(
    (f"{name}-v3", type(f"Sawyer{number}", (SawyerXYZEnv,), {"number": number, "short": name.startswith("door")}))
    for number, name in enumerate(NAMES.split())
)
# Tasks are pickled with their classes.
globals().update({kind.__name__: kind for kind in ALL_V3_ENVIRONMENTS.values()})
