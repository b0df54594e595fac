"""The three compared networks in PyTorch: the same layers, with its fastest settings (channels_last, fused Adam)."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pipeline.config import Recipe


def _convolutions(channels: int, *widths: tuple[int, int], relu_first: bool, dropout: float) -> list[nn.Module]:
    """Return convolutions (filters, kernel) in sequence, then max-pooling and dropout."""
    layers: list[nn.Module] = []
    for filters, kernel in widths:
        layers.append(nn.Conv2d(channels, filters, kernel, padding=kernel // 2))
        layers += [nn.ReLU(), nn.BatchNorm2d(filters)] if relu_first else [nn.BatchNorm2d(filters), nn.ReLU()]
        channels = filters
    return [*layers, nn.MaxPool2d(2), nn.Dropout(dropout)]


def alizadeh_same() -> nn.Module:
    """Build the network, with 4,474,759 trainable parameters."""
    body, channels = [], 1
    for filters, kernel in ((64, 3), (128, 5), (512, 3), (512, 3)):
        body += _convolutions(channels, (filters, kernel), relu_first=False, dropout=0.25)
        channels = filters
    head: list[nn.Module] = [nn.Flatten()]
    for inputs, units in ((4608, 256), (256, 512)):
        head += [nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.ReLU(), nn.Dropout(0.25)]
    return nn.Sequential(*body, *head, nn.Linear(512, 7))


def vgg8() -> nn.Module:
    """Build the network, with 5,902,151 trainable parameters."""
    first = [nn.Conv2d(1, 64, 3), nn.ReLU()]
    body = _convolutions(64, (64, 3), relu_first=True, dropout=0.5)
    for channels, filters in ((64, 128), (128, 256), (256, 512)):
        body += _convolutions(channels, (filters, 3), (filters, 3), relu_first=True, dropout=0.5)
    head: list[nn.Module] = [nn.Flatten()]
    for inputs, units, dropout in ((2048, 512, 0.4), (512, 256, 0.4), (256, 128, 0.5)):
        head += [nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*first, *body, *head, nn.Linear(128, 7))


class _Module(nn.Module):
    """One of the four modules of mini_xception: two separable convolutions and a strided shortcut."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        halved = nn.MaxPool2d(1, stride=2)  # for the reason see pipeline/architectures/mini_xception.py
        self.shortcut = nn.Sequential(halved, nn.Conv2d(inputs, filters, 1, bias=False), nn.BatchNorm2d(filters))
        layers: list[nn.Module] = []
        for channels in (inputs, filters):
            layers += [
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                nn.Conv2d(channels, filters, 1, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
            ]
        self.main = nn.Sequential(*layers[:-1], nn.MaxPool2d(3, stride=2, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.main(x) + self.shortcut(x)


def mini_xception() -> nn.Module:
    """Build the network, with 56,951 trainable parameters."""
    stem: list[nn.Module] = []
    for channels in (1, 8):
        stem += [nn.Conv2d(channels, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    body = [_Module(inputs, filters) for inputs, filters in ((8, 16), (16, 32), (32, 64), (64, 128))]
    return nn.Sequential(*stem, *body, nn.Conv2d(128, 7, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def vary(pictures: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Augment float [n, 1, 48, 48] by the recipe: one affine map per picture, as in our pipeline."""
    count = len(pictures)

    def uniform(reach: float) -> torch.Tensor:
        return (torch.rand(count) * 2 - 1) * reach

    angle, zoom_x, zoom_y = uniform(math.radians(recipe.rotation)), 1 + uniform(recipe.zoom), 1 + uniform(recipe.zoom)
    zoom_x = zoom_x * torch.where(torch.rand(count) < 0.5 * recipe.flip, -1.0, 1.0)
    rows = [
        torch.stack([angle.cos() * zoom_x, -angle.sin() * zoom_y, uniform(2 * recipe.shift)], dim=1),
        torch.stack([angle.sin() * zoom_x, angle.cos() * zoom_y, uniform(2 * recipe.shift)], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


class Contender:
    """Training and prediction of one network in float32, or with autocast to bfloat16."""

    def __init__(self, precision: str, name: str, recipe: Recipe, pixels: Any, labels: Any) -> None:
        torch.manual_seed(0)
        self.recipe = recipe
        self.network = globals()[name]().to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.network.parameters(), recipe.learning_rate, fused=True)
        self.pixels, self.labels = torch.from_numpy(pixels)[:, None], torch.from_numpy(labels).long()
        self.autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")

    def _pictures(self, rows: Any) -> torch.Tensor:
        return (self.pixels[rows].float() / 255).contiguous(memory_format=torch.channels_last)

    def train(self, rows: Any) -> None:
        """Train one epoch of `rows`."""
        self.network.train()
        for batch in torch.from_numpy(rows).split(self.recipe.batch_size):
            self.optimizer.zero_grad()
            with self.autocast:
                outputs = self.network(vary(self._pictures(batch), self.recipe))
            functional.cross_entropy(outputs.float(), self.labels[batch]).backward()
            self.optimizer.step()

    def predict(self, rows: Any) -> None:
        """Predict the mean probabilities of each picture and its mirror image."""
        self.network.eval()
        with torch.inference_mode(), self.autocast:
            for batch in torch.from_numpy(rows).split(256):
                views = [self._pictures(batch), self._pictures(batch).flip(3)]
                torch.stack([self.network(view).softmax(1) for view in views]).mean(0)
