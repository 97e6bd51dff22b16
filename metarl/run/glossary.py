"""The glossary: what every logged figure means, its unit, and which way is better. Nothing else is logged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.errors import nearest


@dataclass(frozen=True)
class Metric:
    """What a logged figure means.

    Attributes:
        meaning: in one sentence.
        unit: "" for a pure number.
        good: the direction in which it is better; `-` where neither is.
    """

    meaning: str
    unit: str
    good: Literal["higher", "lower", "-"]


GLOSSARY: dict[str, Metric] = {
    "return/pre": Metric("Mean undiscounted return of the training tasks before adaptation", "reward", "higher"),
    "return/post": Metric("Mean undiscounted return of the training tasks after adaptation", "reward", "higher"),
    "return/gain": Metric("What adaptation brings: return/post - return/pre", "reward", "higher"),
    "return/trial": Metric("Mean undiscounted return of all episodes of a trial together", "reward", "higher"),
    "return/teacher": Metric(
        "Mean undiscounted return of the teacher, which is told the task (rma; in phase 2 every tenth iteration)",
        "reward",
        "higher",
    ),
    "student/phase": Metric("1 while the teacher is trained, 2 while its student is (rma)", "", "-"),
    "student/error": Metric(
        "Mean squared error of the student's z in what it plays, in variances of z over the tasks: 1 is what the best "
        "constant answer has (rma)",
        "",
        "lower",
    ),
    "student/error_at_end": Metric("The same in the last steps of the episodes alone (rma)", "", "lower"),
    "update/surrogate_before": Metric("Outer objective at the old parameters", "", "higher"),
    "update/surrogate_after": Metric("Outer objective at the new parameters", "", "higher"),
    "update/improvement": Metric("Gain of the outer objective: surrogate_after - surrogate_before", "", "higher"),
    "update/kl": Metric("Mean KL(old || new) of the adapted policies, over visited states", "nat", "-"),
    "update/kl_unadapted": Metric(
        "Mean KL(old || new) of the policies that are adapted, over the states that they are adapted on (ProMP)",
        "nat",
        "-",
    ),
    "update/kl_weight": Metric("Mean weight η of that KL in the objective of the next update", "", "-"),
    "update/line_search_steps": Metric("Candidates that the line search tried", "", "lower"),
    "update/accepted": Metric("1 if the line search found a step, 0 if the parameters stayed", "", "higher"),
    "update/gradient_norm": Metric("Euclidean norm of the outer gradient, before it is shortened", "", "-"),
    "update/gradient_snr": Metric(
        "Squared norm of the outer gradient over the variance of that mean over tasks; 1 is what noise alone gives",
        "",
        "higher",
    ),
    "update/explained_variance": Metric(
        "Part of the returns' variance that the baseline, or the values, explain", "", "higher"
    ),
    "update/steps": Metric("Steps of the optimiser in the update", "", "-"),
    "update/early_stop": Metric("1 if the update ended early because of its KL", "", "lower"),
    "update/clipped": Metric("Part of the visited states whose probability ratio is outside the clip range", "", "-"),
    "update/value_error": Metric("Mean squared error of the values, in variances of the returns", "", "lower"),
    "update/q_error": Metric(
        "Mean squared error of both Q to their targets, in squares of the scaled reward", "", "lower"
    ),
    "update/v_error": Metric("Mean squared error of the values to theirs, in the same unit", "", "lower"),
    "update/learning_rate": Metric("Learning rate of the update", "", "-"),
    "update/entropy_weight": Metric("Weight of the entropy in the objective of the update", "", "-"),
    "update/move": Metric(
        "Euclidean norm of the mean way from the parameters to those of the tasks (Reptile)", "", "-"
    ),
    "update/outer_step": Metric("Part of that way that the update takes", "", "-"),
    "belief/reward_error": Metric(
        "Mean error of rewards decoded by a trial's beliefs: squared, in their variances, or cross-entropy (VariBAD)",
        "",
        "lower",
    ),
    "belief/state_error": Metric(
        "Mean squared error of changes of the state decoded by the beliefs, in their variances (VariBAD)", "", "lower"
    ),
    "belief/step_kl": Metric("Mean KL of a belief from the one a step before (VariBAD)", "nat", "-"),
    "belief/std": Metric("Mean standard deviation of a trial's last belief; that of the prior is 1 (VariBAD)", "", "-"),
    "belief/gradient_norm": Metric(
        "Euclidean norm of the gradient of encoder and decoders, before it is shortened (VariBAD)", "", "-"
    ),
    "policy/std": Metric("Mean standard deviation of the actions", "action", "-"),
    "policy/entropy": Metric("Mean entropy of the policy's actions, over visited states", "nat", "-"),
    "policy/temperature": Metric("What a nat of entropy is worth (α of soft actor-critic)", "scaled reward", "-"),
    "belief/kl": Metric("Mean KL(belief about the task || prior), over the tasks of the updates", "nat", "-"),
    "replay/steps": Metric("Steps that are kept to be learned from, of all training tasks", "step", "-"),
    "inner/rate": Metric("Mean inner rate α over all parameters, where the rates are learned", "", "-"),
    "reward/<term>": Metric("Mean per step of one term of the reward, after adaptation", "reward", "higher"),
    "episode/length": Metric("Mean length of the episodes", "step", "-"),
    "episode/terminated": Metric("Part of the episodes that the task ended before the time limit", "", "-"),
    "episode/success": Metric("Part of the episodes that met the task's goal at any step", "", "higher"),
    "env/failures": Metric("Simulations that became invalid so far; each ended its own episode only", "", "lower"),
    "env/steps": Metric("Environment steps so far", "step", "-"),
    "time/collect": Metric("Time in collection, per iteration", "s", "lower"),
    "time/policy": Metric("Part of time/collect spent in the policy; 0 where a GPU replays whole steps", "s", "lower"),
    "time/adapt": Metric("Time in inner adaptation for collection, per iteration", "s", "lower"),
    "time/update": Metric("Time in the outer update, per iteration", "s", "lower"),
    "time/belief": Metric("Part of time/update spent on encoder and decoders (VariBAD)", "s", "lower"),
    "time/iteration": Metric("Time of the whole iteration", "s", "lower"),
    "speed/env_steps_per_second": Metric("Environment steps per second of collection", "step/s", "higher"),
    "adaptation/mean": Metric("Mean return over the tasks after n episodes of experience", "reward", "higher"),
    "adaptation/lower": Metric("Lower end of the 95% interval of adaptation/mean", "reward", "higher"),
    "adaptation/upper": Metric("Upper end of the 95% interval of adaptation/mean", "reward", "higher"),
    "adaptation/iqm": Metric("Interquartile mean return over the tasks after n episodes", "reward", "higher"),
    "adaptation/success": Metric("Part of the episodes that met the goal after n of experience", "", "higher"),
    "adaptation/survives": Metric(
        "In another reality: the gap closed there over the gap closed at home, at the last point", "", "higher"
    ),
    "adaptation/picture": Metric("Picture of the adaptation curves: the content of adaptation.png", "", "-"),
    "adaptation/film": Metric(
        "Film of the first task before and after adaptation, from the same start; long episodes play fast", "", "-"
    ),
    "train/loss": Metric("Mean training loss of the meta-batch, of the kind that the learner has", "", "lower"),
    "train/accuracy": Metric("Part of the queries of the meta-batch that were answered right", "", "higher"),
    "validation/accuracy": Metric("Accuracy on fixed episodes of the validation classes", "", "higher"),
    "validation/loss": Metric("Mean squared error on fixed validation episodes, in the data's units", "", "lower"),
    "validation/return": Metric(
        "Mean undiscounted return on fixed tasks of the training distribution, at the point that training adapts to",
        "reward",
        "higher",
    ),
    "validation/success": Metric("Part of those episodes that met the task's goal at any step", "", "higher"),
    "validation/failures": Metric(
        "Simulations of that validation that became invalid; each ended its own episode only", "", "lower"
    ),
    "validation/waited": Metric("Checkpoints in a row that did not raise the validation", "", "-"),
    "time/validation": Metric("Time of the validation at a checkpoint", "s", "lower"),
    "test/accuracy": Metric("Mean accuracy over test episodes with n shots", "", "higher"),
    "test/mse": Metric("Mean squared error over test episodes with n shots, in the data's units", "", "lower"),
    "test/lower": Metric("Lower end of the 95% interval of test/accuracy or test/mse", "", "-"),
    "test/upper": Metric("Upper end of the 95% interval of test/accuracy or test/mse", "", "-"),
    "test/ece": Metric("Expected calibration error of the test, 15 bins", "", "lower"),
    "steps/accuracy": Metric("Mean accuracy over test episodes after n inner steps", "", "higher"),
    "steps/mse": Metric("Mean squared error over test episodes after n inner steps, in the data's units", "", "lower"),
    "steps/lower": Metric("Lower end of the 95% interval of steps/accuracy or steps/mse", "", "-"),
    "steps/upper": Metric("Upper end of the 95% interval of steps/accuracy or steps/mse", "", "-"),
    "probe_r2/<parameter>": Metric(
        "R2 of a linear probe that predicts a task parameter of held-out tasks from the memory after n episodes",
        "",
        "higher",
    ),
    "probe_accuracy/<parameter>": Metric("Accuracy of such a probe, where the parameter is a choice", "", "higher"),
    "probe_chance/<parameter>": Metric("Accuracy of the best constant answer, for probe_accuracy", "", "-"),
    "swap/own": Metric("Mean return of the last episode of a trial with the world's own memory", "reward", "higher"),
    "swap/other": Metric("The same with the memory of a world with another task", "reward", "-"),
    "swap/none": Metric("The same with an empty memory", "reward", "-"),
    "swap/first_action": Metric(
        "What another task's memory changes of that episode's first action: part of worlds where actions are discrete, "
        "else mean absolute difference",
        "",
        "-",
    ),
}
"""Every tag that may be logged. A part in angle brackets stands for any name."""


def look_up(tag: str) -> Metric:
    """Return the meaning of a tag.

    Raises:
        ValueError: if the glossary lacks it.
    """
    group, _, name = tag.partition("/")
    for known, metric in GLOSSARY.items():
        if tag == known or (known.startswith(f"{group}/<") and name and "/" not in name):
            return metric
    raise ValueError(f"The metric '{tag}' is not in glossary.GLOSSARY; add it there.{nearest(tag, GLOSSARY)}")
