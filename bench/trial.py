"""Print the differences of the trial networks, 12 epochs with weaker augmentation, from two seeds of narrow_vgg."""

import numpy as np

from bench import ablation
from pipeline.data import faces
from pipeline.evaluation import limits, metrics
from pipeline.experiments import runner

REFERENCE = ["narrow_vgg, 12 epochs, weaker", "narrow_vgg, 12 epochs, weaker, another seed"]
NAMES = ["q_local, 12", "q_local_late, 12", "q_one, 12", "q_stem, 12"]

data = faces.load()
tasks = ablation.plan(data)
results = runner.load_finished(data, tasks, ablation.FOLDER)
rows = tasks["baseline"].evaluated
y, groups = data.labels[rows].astype(int), faces.picture_groups(data.pixels)[rows]
plain = [results[name].probabilities.astype(float) for name in REFERENCE + NAMES]
brier = ((np.stack(limits.tempered(plain, y)) - np.eye(7)[y]) ** 2).sum(2)
hits = np.array([metrics.right(p, y) for p in plain]) * 100.0
print("reference", hits[:2].mean(), brier[:2].mean())
for i, name in enumerate(NAMES, start=2):
    for value, unit in ((hits, ".2f"), (brier, ".4f")):
        gain = value[i] - value[:2].mean(0)
        low, high = limits.interval_95(limits.bootstrap(gain, groups))
        print(f"{name:18} {value[i].mean():{unit}} {gain.mean():+{unit}} ({low:+{unit}} to {high:+{unit}})")
    print(f"{name:18} {float(results[name].seconds) / 60:.1f} min")
print([f"{float(results[name].seconds) / 60:.1f} min" for name in REFERENCE])
