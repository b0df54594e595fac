"""Effects of the ingredients of the trainings "screen 00" to "screen 11", a Plackett-Burman design; prints a table."""

import numpy as np
from scipy.stats import t

from bench import ablation
from pipeline.data import faces
from pipeline.evaluation import limits, metrics
from pipeline.experiments import runner

FIRST = [1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0]
DESIGN = 2 * np.array([FIRST[-i:] + FIRST[:-i] if i else FIRST for i in range(11)] + [[0] * 11]) - 1
NAMES = [
    "SiLU instead of ReLU", "3x3 instead of 2x2 mean in the pooling", "coordinates as channels of every block",
    "mean and maximum before the classifier", "features of the last two blocks", "spatial dropout 0.1 after each pooling",
    "fully connected layer of 256 units", "5x5 kernel in the first convolution", "local contrast as a second channel",
    "batch size 64, learning rate 0.015", "weight decay 0.2",
]  # fmt: skip

data = faces.load()
tasks = ablation.plan(data)
results = runner.load_finished(data, tasks, ablation.FOLDER)
rows = tasks["screen 00"].evaluated
y, groups = data.labels[rows].astype(int), faces.picture_groups(data.pixels)[rows]
trained = [f"screen {i:02d}" for i in range(12) if f"screen {i:02d}" in results]
plain = [results[name].probabilities.astype("float64") for name in trained]
errors = np.stack(limits.tempered(plain, y)) - np.eye(7)[y]
brier = (errors**2).sum(2)
hits = np.array([metrics.right(p, y) for p in plain]) * 100.0
for name, b, h in zip(trained, brier.mean(1), hits.mean(1)):
    print(name, f"{h:.2f} {b:.4f}", f"{float(results[name].seconds) / 60:.1f} min")
if len(trained) == 12:
    boot = lambda v: limits.interval_95(limits.bootstrap(v, groups))

    def common(mask):
        total, count = errors[mask].sum(0), mask.sum()
        return ((total**2).sum(1) - (errors[mask] ** 2).sum(2).sum(0)) / (count * (count - 1))

    lines, centres = [], []
    for name, column in zip(NAMES, DESIGN.T):
        values = column / 6.0 @ hits, column / 6.0 @ brier, common(column > 0) - common(column < 0)
        centres.append([v.mean() for v in values])
        cells = [f"{v.mean():{f}} ({boot(v)[0]:{f}} to {boot(v)[1]:{f}})" for v, f in zip(values, ("+.2f", "+.4f", "+.4f"))]
        lines.append((values[2].mean(), f"| {name} | " + " | ".join(cells) + " |"))
    print("\n".join(line for _, line in sorted(lines)))
    size = np.abs(np.array(centres))
    for x in size.T:
        start = 1.5 * np.median(x)
        pse = 1.5 * np.median(x[x < 2.5 * start])
        print("Lenth", t.ppf(0.975, 11 / 3) * pse, t.ppf(1 - (1 - 0.95 ** (1 / 11)) / 2, 11 / 3) * pse)
