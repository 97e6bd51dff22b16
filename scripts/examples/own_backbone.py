"""Few-shot learning with a network of your own, whose weights are there already and stay as they are.

In place of a pretrained network stands a small one that is trained here, to tell the frequency of signals; in place of
your items stand signals of new frequencies. The network makes features of them, and a ridge head is learned on those.

    python scripts/examples/own_backbone.py
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from metarl import fewshot


def signals(frequencies: np.ndarray, each: int, generator: np.random.Generator) -> np.ndarray:
    """Return noisy waves of some frequencies at random phases, [frequencies * each, 64]."""
    phases = generator.uniform(0.0, 2.0 * np.pi, (len(frequencies), each, 1))
    waves = np.sin(frequencies[:, None, None] * np.linspace(0.0, 1.0, 64) + phases)
    return (waves + 0.5 * generator.normal(size=waves.shape)).reshape(-1, 64).astype(np.float32)


def pretrained(generator: np.random.Generator) -> nn.Module:
    """Return a network that was trained to tell the frequency of signals; yours may come from a file."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Unflatten(1, (1, 64)), nn.Conv1d(1, 32, 17), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()
    )
    head = nn.Linear(32, 1)
    optimiser = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(150):
        frequencies = generator.uniform(10.0, 80.0, 64)
        items = torch.from_numpy(signals(frequencies, 1, generator))
        loss = (head(body(items))[:, 0] - torch.from_numpy(frequencies).float() / 40.0).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return body


def main() -> None:
    """Train a head on the network's features, and score it beside the same without the network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=100, help="of the training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/own-backbone"), help="for runs (default: %(default)s)")
    options = parser.parse_args()
    generator = np.random.default_rng(0)

    network = pretrained(generator)
    items, classes = signals(generator.uniform(10.0, 80.0, 60), 12, generator), np.repeat(np.arange(60), 12)
    data = fewshot.from_arrays(items, classes)
    # What the network was trained on had no scaling; its weights stay as they are.
    mean, deviation = torch.tensor(data.mean), torch.tensor(data.deviation)

    class Unscaled(nn.Module):
        """The network behind the scaling that items of the data come with."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Return features."""
            return self.network(x * deviation + mean)

    for name, backbone in (("raw numbers", "identity"), ("the network", Unscaled())):
        frozen = backbone != "identity"
        run = fewshot.FewShotRun(
            data="signals", learner="r2d2", way=5, shot=1, query=5, backbone=backbone, freeze_backbone=frozen
        )
        folder = options.out / name.replace(" ", "-")
        trained = fewshot.train(folder, run, data, iterations=options.iterations)
        accuracy = fewshot.score(trained.learner, data)
        print(f"{name}: {accuracy.estimate:.1%} [{accuracy.lower:.1%}, {accuracy.upper:.1%}]")


if __name__ == "__main__":
    main()
