"""Trial: rotated views in test-time augmentation, with the released networks of folds 1 and 2 on their held-out rows.

Reads the data and released/. Takes about 20 minutes of one core.
"""

import numpy as np

from pipeline.apps import networks
from pipeline.data import faces, folds
from pipeline.evaluation import metrics
from pipeline.training import augment

ZOOMS, ANGLES = (1.0, 0.85, 1.15), (0.0, 10.0, -10.0)
SETS = {
    "used by the recipe": [(z, 0.0) for z in ZOOMS],
    "and rotated by 10 degrees": [*[(z, 0.0) for z in ZOOMS], (1.0, 10.0), (1.0, -10.0)],
    "all combinations": [(z, a) for z in ZOOMS for a in ANGLES],
}


def main() -> None:
    """Print the table."""
    data = faces.load()
    assignment = folds.load(data, "small_vgg_ten")
    (members,) = networks.load("released").members.values()
    every = [(z, a, side) for z in ZOOMS for a in ANGLES for side in (1, -1)]
    zoom, angle, side = np.array(every).T
    crop, zero = members[0].facts.recipe.crop, 0 * zoom
    maps = augment.maps(crop, crop, np.radians(angle), (side * zoom, zoom), (zero, zero))
    views: list[list[np.ndarray]] = [[] for _ in every]
    rows = [assignment.held_out(fold) for fold in (1, 2)]
    for member, held_out in zip(members[1:3], rows, strict=True):
        for k, each in enumerate(maps):
            member.views = each[None]
            views[k].append(member.probabilities(data.pixels[held_out]))
    probabilities = np.stack([np.concatenate(each) for each in views]).astype("float64")
    labels = data.labels[np.concatenate(rows)].astype(int)
    base = None
    for title, chosen in SETS.items():
        mean = probabilities[[(z, a) in chosen for z, a, _ in every]].mean(axis=0)
        hits = metrics.right(mean, labels).astype(float)
        scaled = metrics.temper(mean, metrics.fit_temperature(mean, labels))
        errors = ((scaled - np.eye(7)[labels]) ** 2).sum(axis=1)
        base = base or (hits, errors)
        for now, then, factor in zip((hits, errors), base, (100, 1), strict=True):
            change, half = (now - then).mean() * factor, 1.96 * (now - then).std() / len(now) ** 0.5 * factor
            print(f"{title}: {now.mean():.4f}, {change:+.4f} ({change - half:+.4f} to {change + half:+.4f})")


if __name__ == "__main__":
    main()
