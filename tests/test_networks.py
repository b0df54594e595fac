"""A network that was brought back answers as it did where it was trained, on every library."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from pipeline import architectures, recipe
from pipeline.apps import networks, release
from pipeline.competition import CLASSES
from pipeline.data import faces, synthetic
from pipeline.errors import UserError
from pipeline.evaluation import ensemble, metrics
from pipeline.training import augment, backend, machine

ROOT = Path(__file__).parent.parent
NAMES = ("small_vgg", "mini_xception")
PIXELS, LABELS, USAGE = synthetic.competition(training=56, test=70, seed=1)
TEMPERATURES = {"small_vgg": 1.5, "mini_xception": 0.7, "ensemble": 0.8}


@pytest.fixture(autouse=True, scope="module")
def _started() -> None:
    backend.start(machine.choose("auto"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with two folds of two networks, their weights as they were drawn, and what these say of test rows."""
    from pipeline.training import loop

    folder = tmp_path_factory.mktemp("project")
    document = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    own = {
        "small_vgg": {"crop": 42, "contrast": "local", "shift_at_test": 2},
        "mini_xception": {"scaling": "symmetric"},
    }
    document |= {"folds": [0, 1], "architectures": own, "students": {}}
    document["train"] |= {"precision": "float32"}
    document["ensemble"] |= {"members": list(NAMES)}
    YAML(typ="safe").dump(document, folder / "params.yaml")
    said = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = faces.Faces(PIXELS, np.where(USAGE == 0, LABELS, -1).astype("int8"), USAGE.astype("uint8"))
        for name in NAMES:
            settings = recipe.read(name)
            for fold in (0, 1):
                backend.prepare(fold + 1, "float32")
                network = architectures.build(name)
                predictor = loop.Predictor(loop.Feed(data.pixels, settings), network)
                said[name, fold] = predictor.views(data.test_rows(), augment.views(settings)).mean(axis=0)
                path = Path(f"artifacts/models/{name}/fold{fold}.weights.h5")
                path.parent.mkdir(parents=True, exist_ok=True)
                network.save_weights(path)
                about = {
                    "architecture": name, "classes": list(CLASSES), "recipe": settings.model_dump(),
                    "fold": fold, "seed": 1,
                }  # fmt: skip
                path.with_name(f"fold{fold}.json").write_text(json.dumps(about))
        ensemble.RESULT.parent.mkdir()
        write_result()
    return folder, data.pixels[data.test_rows()], said


def write_result(method="weights", weights=(0.75, 0.25)):
    result = {
        "method": method, "weights": dict(zip(NAMES, weights, strict=True)),
        "submissions": {name: {"temperature": value} for name, value in TEMPERATURES.items()},
    }  # fmt: skip
    ensemble.RESULT.write_text(json.dumps(result))


@pytest.fixture
def project(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    write_result()
    return trained[1:]


@pytest.mark.parametrize("name", NAMES)
def test_a_fold_gives_test_rows_the_probabilities_that_its_cell_stored(project, name):
    pixels, said = project
    found = networks.load(f"{name}-1").probabilities(pixels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, metrics.temper(said[name, 1], TEMPERATURES[name]), atol=1e-5)


def test_an_answer_does_not_depend_on_what_is_asked_beside_it(project):
    pixels, _ = project
    one = networks.load("small_vgg-0")
    together = one.probabilities(pixels)
    for count in (0, 1, 6, 7, 129):
        np.testing.assert_allclose(one.probabilities(pixels[:count]), together[:count], atol=1e-5)


def test_an_architecture_is_the_mean_of_its_folds(project):
    pixels, said = project
    mean = (said["small_vgg", 0] + said["small_vgg", 1]) / 2
    found = networks.load("small_vgg").probabilities(pixels)
    np.testing.assert_allclose(found, metrics.temper(mean, TEMPERATURES["small_vgg"]), atol=1e-5)


@pytest.mark.parametrize("method", ["weights", "bagged", "geometric"])
def test_the_ensemble_joins_as_the_stage_does(project, method):
    pixels, said = project
    write_result(method, (0.75, 0.25) if method != "geometric" else (None, None))
    means = np.stack([metrics.temper((said[name, 0] + said[name, 1]) / 2, TEMPERATURES[name]) for name in NAMES])
    joined = ensemble.geometric_mean(means)
    if method != "geometric":
        joined = 0.75 * means[0] + 0.25 * means[1]
    network = networks.load("ensemble")
    found = network.probabilities(pixels[:20])
    np.testing.assert_allclose(found, metrics.temper(joined, TEMPERATURES["ensemble"])[:20], atol=1e-5)
    assert {name: len(members) for name, members in network.members.items()} == {"small_vgg": 2, "mini_xception": 2}
    assert network.classes == CLASSES
    maps = network.attention(pixels[:3], found[:3].argmax(axis=1))
    assert maps.shape == (3, 48, 48)
    assert maps.min() >= 0
    assert 0 < maps.max() <= 1


def test_a_member_without_weight_is_not_asked(project):
    pixels, said = project
    write_result("bagged", (0.0, 1.0))
    network = networks.load("ensemble")
    assert list(network.members) == ["mini_xception"]
    mean = metrics.temper((said["mini_xception", 0] + said["mini_xception", 1]) / 2, TEMPERATURES["mini_xception"])
    expected = metrics.temper(mean, TEMPERATURES["ensemble"])[:20]
    np.testing.assert_allclose(network.probabilities(pixels[:20]), expected, atol=1e-5)


def test_the_released_network_comes_with_its_own_temperature(monkeypatch):
    monkeypatch.chdir(ROOT)
    network = networks.load()
    about = json.loads(release.find().read_text())
    assert network.temperature == about["temperature"]
    assert network.classes == tuple(about["classes"])
    assert network.probabilities(PIXELS[:2]).sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.parametrize(("which", "words"), [
    ("vgg9", "no network 'vgg9'.*like vgg8-0"), ("small_vgg-7", "no network 'small_vgg-7'.*folds 0, 1"),
    ("../small_vgg", "no network"), ("vgg8", "vgg8/fold0.json cannot be used"),
    ("released", "make release"), ("", "no network ''"),
])  # fmt: skip
def test_a_network_that_is_not_there_is_refused(project, which, words):
    result = json.loads(ensemble.RESULT.read_text())
    result["submissions"]["vgg8"] = {"temperature": 1}
    ensemble.RESULT.write_text(json.dumps(result))
    with pytest.raises(UserError, match=words):
        networks.load(which)


@pytest.mark.parametrize(("file", "change", "words"), [
    ("json", lambda content: b"{", "cannot be used"),
    ("json", lambda content: b"[]", "cannot be used"),
    ("json", lambda content: content.replace(b'"crop"', b'"corp"'), "another version's"),
    ("json", lambda content: content.replace(b'"small_vgg"', b'"os.system"'), "unknown"),
    ("weights.h5", lambda content: content[:500], "dvc repro -f train@small_vgg-0"),
    ("weights.h5", lambda content: b"", "dvc repro -f train@small_vgg-0"),
])  # fmt: skip
def test_damaged_files_are_refused_with_the_way_to_make_them_again(project, file, change, words):
    path = Path(f"artifacts/models/small_vgg/fold0.{file}")
    content = path.read_bytes()
    path.write_bytes(change(content))
    try:
        with pytest.raises(UserError, match=words):
            networks.load("small_vgg-0")
    finally:
        path.write_bytes(content)


def test_folds_that_know_other_classes_are_refused(project):
    path = Path("artifacts/models/small_vgg/fold1.json")
    content = path.read_text()
    path.write_text(json.dumps(json.loads(content) | {"classes": sorted(CLASSES)}))
    try:
        with pytest.raises(UserError, match="same classes in the same order"):
            networks.load("small_vgg")
    finally:
        path.write_text(content)


@pytest.mark.slow
def test_jax_answers_and_looks_as_tensorflow_does(project):
    pixels, _ = project
    code = """
import io
import sys
import numpy as np
from pipeline import networks
network = networks.load("small_vgg-1")
pixels = np.load(io.BytesIO(sys.stdin.buffer.read()))
np.savez(sys.argv[1], network.probabilities(pixels), network.attention(pixels, np.arange(7)))
"""
    packed = io.BytesIO()
    np.save(packed, pixels[:7])
    for library in ("jax", "tensorflow"):
        done = subprocess.run(
            [sys.executable, "-c", code, f"{library}.npz"], input=packed.getvalue(), capture_output=True,
            env=os.environ | {"KERAS_BACKEND": library, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
    with np.load("jax.npz") as one, np.load("tensorflow.npz") as other:
        for name in one:
            np.testing.assert_allclose(one[name], other[name], atol=1e-3)
