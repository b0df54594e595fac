import subprocess
import sys
from pathlib import Path

import pytest
from pipeline.stages import check
from ruamel.yaml import YAML

from pipeline import command, params

ROOT = Path(__file__).parent.parent
TYPOS = [  # where it is typed, what is typed, what the refusal says
    ("duplicates", "drop", "duplicates = 'drop': must be one of keep, drop_test_duplicates, drop_repeats"),
    ("backend", "theano", "backend = 'theano': must be auto, tensorflow, jax, torch"),
    ("seed", 0.5, "seed = 0.5: must be a whole number from 0 to"),
    ("data.source", "kagle", "data.source = 'kagle': "),
    ("data.test_faces", 6, "data.test_faces = 6: "),
    ("data.sorce", "local", "unknown key data.sorce; the known ones are source, "),
    ("folds", [0], "folds = [0]: must list at least two folds"),
    ("folds", [0, 2], "folds = [0, 2]: must count up from 0, like [0, 1]"),
    ("train.epoch", 3, "unknown key train.epoch; the known ones are epochs, "),
    ("architectures.vgg9", {}, "unknown architecture 'vgg9'; pipeline/architectures/ has "),
    ("architectures.small_resnet.flips", True, "unknown key architectures.small_resnet.flips; "),
    ("architectures.vgg8", {"crop": 44}, "vgg8.crop = 44: vgg8 takes whole pictures only, so it must be 48"),
    ("architectures.mini_xception", {"early_epochs": 1}, "mini_xception.early_epochs = 1: mini_xception takes whole"),
    ("architectures.small_resnet.shift", 1.5, "architectures.small_resnet.shift = 1.5: "),
    ("ensemble.method", "average", "ensemble.method = 'average': "),
    ("ensemble.members", ["small_resnet", "vg8"], "ensemble.members names 'vg8', which is never trained"),
    ("ensembel", {}, "unknown section 'ensembel'; the known ones are seed, backend, data, folds, duplicates, "),
]


def checked(folder):
    return subprocess.run([sys.executable, "-m", "pipeline.stages.check"], cwd=folder, env={"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip


def write(folder, place, value):
    """The committed params.yaml with another `value` at `place`."""
    inner = document = YAML(typ="safe").load((ROOT / params.PATH).read_text())
    *outer, last = place.split(".")
    for key in outer:
        inner = inner[key]
    inner[last] = value
    with open(folder / params.PATH, "w") as file:
        YAML(typ="safe").dump(document, file)


def test_the_committed_params_pass_in_silence():
    done = checked(ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_typo_ends_the_process_with_one_line_and_status_1(tmp_path):
    write(tmp_path, "train.learning_rate", "fast")
    done = checked(tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: params.yaml: ")
    assert "learning_rate = 'fast': " in done.stderr


@pytest.mark.parametrize(("place", "value", "said"), TYPOS)
def test_each_typo_is_named_in_one_line(tmp_path, monkeypatch, capsys, place, value, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["check"])
    write(tmp_path, place, value)
    with pytest.raises(SystemExit) as left:
        command.run(check.main, "python -m pipeline.stages.check")
    printed = capsys.readouterr()
    assert (left.value.code, printed.out, printed.err.count("\n")) == (1, "", 1)
    assert printed.err.startswith(f"error: params.yaml: {said}")
