"""Few-shot learning on a folder of your own pictures, FOLDER/CLASS/PICTURE: then name new pictures by a few examples.

If you give no folder, one with 40 kinds of figures is drawn first.

    python scripts/examples/own_pictures.py
    python scripts/examples/own_pictures.py --folder my_pictures --size 84
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from metarl import fewshot


def draw_figure(corners: np.ndarray, generator: np.random.Generator) -> Image.Image:
    """Return a figure, placed and drawn a little differently each time."""
    image = Image.new("L", (28, 28), "white")
    wobbly = corners + generator.normal(0.0, 0.7, corners.shape) + generator.normal(0.0, 1.0, 2)
    ImageDraw.Draw(image).line([tuple(corner) for corner in wobbly.tolist()], fill="black", width=2)
    return image


def draw_folder(folder: Path, generator: np.random.Generator) -> None:
    """Write 40 classes of 12 pictures."""
    for kind in range(40):
        corners = generator.uniform(4.0, 24.0, (5, 2))
        (folder / f"figure{kind}").mkdir(parents=True)
        for number in range(12):
            draw_figure(corners, generator).save(folder / f"figure{kind}" / f"{number}.png")


def main() -> None:
    """Train on the folder, score, and name pictures of new classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="your pictures, FOLDER/CLASS/PICTURE; some are drawn if not given")
    parser.add_argument("--size", type=int, default=28, help="height and width to bring them to (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=200, help="of the training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/own-pictures"), help="folder (default: %(default)s)")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    folder = options.folder or options.out / "pictures"
    if options.folder is None and not folder.exists():
        draw_folder(folder, generator)
    # Decoded pictures are kept for the next time; without this line in ~/.cache/metarl.
    os.environ.setdefault("METARL_CACHE", str(options.out / "cache"))

    run = fewshot.FewShotRun(
        data="folder@grey",
        data_root=folder,
        size=options.size,
        learner="proto",
        width=16,
        validation=50,
        checkpoint_every=50,
    )
    trained = fewshot.train(options.out / "run", run, iterations=options.iterations)
    accuracy = fewshot.score(trained.learner, trained.source, episodes=200)
    print(f"Held-out classes, 5 at a time: {accuracy.estimate:.1%} [{accuracy.lower:.1%}, {accuracy.upper:.1%}]")

    data: Any = trained.source
    # Three new figures, drawn four times each: the first one is the example, the others are to be named.
    corners = generator.uniform(4.0, 24.0, (3, 5, 2))
    drawn = [[draw_figure(figure, generator).resize((options.size,) * 2) for _ in range(4)] for figure in corners]
    pictures = np.stack([[np.asarray(image) for image in images] for images in drawn])
    answers, _ = fewshot.predict(
        trained.learner,
        data,
        pictures[:, 0],
        ["a", "b", "c"],
        pictures[:, 1:].reshape(9, *pictures.shape[2:]),
    )
    print(f"New figures a, b, c, three of each: {' '.join(answers)}")


if __name__ == "__main__":
    main()
