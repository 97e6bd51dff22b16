"""Few-shot learning on your own arrays: train on many classes, then tell new ones apart by an example or two of each.

In place of your arrays stand made-up measurements: of 20 numbers, 5 tell what something is and the others are noise.
A learner finds out from the training classes which to look at; comparing all numbers alike does far worse.

    python scripts/examples/own_arrays.py
"""

import argparse
from pathlib import Path

import numpy as np

from metarl import fewshot


def measured(classes: int, items: int, generator: np.random.Generator) -> np.ndarray:
    """Return measurements of new classes, [classes, items, 20]."""
    kind = generator.normal(size=(classes, 1, 5)) + 0.2 * generator.normal(size=(classes, items, 5))
    return np.concatenate((kind, 2.0 * generator.normal(size=(classes, items, 15))), axis=2).astype(np.float32)


def main() -> None:
    """Train, score, and answer for classes that nobody has seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=300, help="of the training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/own-arrays"), help="run folder (default: %(default)s)")
    options = parser.parse_args()
    generator = np.random.default_rng(0)

    # Items [n, ...] and the class of each, an integer: this is what you bring.
    items, classes = measured(100, 12, generator).reshape(-1, 20), np.repeat(np.arange(100), 12)
    data = fewshot.from_arrays(items, classes)  # its classes are split into train, validation and test
    run = fewshot.FewShotRun(data="arrays", learner="proto", way=5, shot=1, query=5)
    trained = fewshot.train(options.out, run, data, iterations=options.iterations)
    accuracy = fewshot.score(trained.learner, data)
    print(f"Held-out classes, 5 at a time: {accuracy.estimate:.1%} [{accuracy.lower:.1%}, {accuracy.upper:.1%}]")

    # Three new classes with two examples each; their labels may be any words or numbers.
    names, new = ["iron", "gold", "tin"], measured(3, 12, generator)
    examples, labels = new[:, :2].reshape(-1, 20), np.repeat(names, 2).tolist()
    others, truth = new[:, 2:].reshape(-1, 20), np.repeat(names, 10).tolist()
    answers, probabilities = fewshot.predict(trained.learner, data, examples, labels, others)
    right = sum(answer == true for answer, true in zip(answers, truth, strict=True))
    print(f"New classes: {right} of {len(truth)} right; the first is {answers[0]}, {float(probabilities[0].max()):.0%}")


if __name__ == "__main__":
    main()
