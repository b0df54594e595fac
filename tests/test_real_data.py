"""Published counts and scores on the competition's data, if a copy is next to the project."""

import json
import subprocess
import sys

import pytest
from settings import ROOT

from pipeline import competition
from pipeline.apps import networks, packed
from pipeline.data import prepare
from pipeline.evaluation import audit

COPY = ROOT.parent / "shared/fer2013/make_competition.py"
pytestmark = pytest.mark.skipif(not COPY.exists(), reason="no copy of the competition's data next to the project")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fer2013")
    subprocess.run([sys.executable, COPY, folder, "--only", "fer2013.tar.gz"], check=True, capture_output=True)
    faces, hidden = prepare.hide_test_labels(prepare.read_folder(folder))
    labels = faces.labels.astype(int)
    labels[hidden["row"]] = hidden["emotion"]
    return faces, labels


def test_the_real_data_has_the_published_counts_and_the_known_duplicates(data):
    faces, labels = data
    result = audit.examine(faces.pixels, labels, faces.usage)
    assert tuple(result["rows"].values()) == competition.SPLIT_ROWS
    assert result["classes_as_published"]
    assert result["constant_pictures"] == {"Training": 11, "PublicTest": 1, "PrivateTest": 0}
    identical = result["identical_pictures"]
    counts = [identical[key] for key in ("groups", "extra_copies", "groups_with_conflicting_labels")]
    assert counts == [1518, 1855, 59]
    assert identical["PrivateTest in Training"]["rows"] == 288


@pytest.mark.slow
def test_the_released_network_has_the_accuracy_on_its_card(data, monkeypatch):
    monkeypatch.chdir(ROOT)
    faces, labels = data
    card = json.loads(packed.find().read_text())["scores"]
    rows = faces.rows(competition.PRIVATE)
    predicted = networks.load().probabilities(faces.pixels[rows]).argmax(axis=1)
    accuracy = (predicted == labels[rows]).mean()
    # The rounding depends on the processor and the precision.
    assert accuracy == pytest.approx(card["PrivateTest"]["accuracy"], abs=0.002)
