import json

import numpy as np
import pandas as pd
import pytest
import requests
from kagglesdk.competitions.types.competition_api_service import ApiCreateSubmissionResponse, ApiSubmission
from kagglesdk.competitions.types.submission_status import SubmissionStatus

from pipeline import kaggle_client, submission, submit
from pipeline.command import Refusal
from pipeline.competition import SLUG

STANDS = "keep the local score, which stands in submissions/scores.csv"
FILE = submission.FOLDER / "vgg8.csv"


class Kaggle:
    """A Kaggle that counts what it is asked, and answers with the client's own types."""

    def __init__(self):
        self.states, self.ref, self.message, self.troubles = ["PENDING", "COMPLETE"], 41, "Successfully submitted", {}
        self.logins, self.sent, self.asked = 0, [], 0

    def login(self, otherwise):
        assert otherwise == STANDS
        self.logins += 1
        return self

    def competition_submit(self, file_name, message, competition, quiet=False):
        if "send" in self.troubles:
            raise self.troubles["send"]
        with open(file_name, "rb") as file:
            self.sent.append((competition, message, file.read()))
        answer = ApiCreateSubmissionResponse()
        answer.ref, answer.message = self.ref, self.message
        return answer

    def competition_submissions(self, competition):
        self.asked += 1
        if "ask" in self.troubles:
            raise self.troubles["ask"]
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        older, own = ApiSubmission(), ApiSubmission()
        older.ref, older.status, older.private_score = 7, SubmissionStatus.COMPLETE, "0.1"
        if state == "not listed":
            return [older]
        own.ref, own.status = self.ref, SubmissionStatus[state]
        if state == "COMPLETE":
            own.public_score, own.private_score = "0.70019", "0.71245"
        if state == "ERROR":
            own.error_description = "Evaluation raised an exception"
        return [older, None, own]


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """A folder with two scored submissions, and the Kaggle that main() logs in to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE", raising=False)
    lines = []
    for seed, name in enumerate(("vgg8", "ensemble")):
        labels = np.random.default_rng(seed).integers(0, 7, 7178)
        digest = submission.write(submission.FOLDER / f"{name}.csv", labels)
        lines.append({"name": name, "oof_accuracy": 0.65432, "private_accuracy": 0.7, "sha256": digest})
    pd.DataFrame(lines).to_csv(submission.TABLE, index=False)
    fake = Kaggle()
    monkeypatch.setattr(kaggle_client, "login", fake.login)
    monkeypatch.setattr(submit.time, "sleep", lambda seconds: None)
    return fake


def recorded():
    return json.loads(submit.ANSWERS.read_text()) if submit.ANSWERS.exists() else []


def test_a_submission_is_sent_waited_for_and_recorded(kaggle, capsys):
    kaggle.states = ["not listed", "PENDING", "COMPLETE"]
    submit.main("vgg8", "the first one")
    assert kaggle.sent == [(SLUG, "the first one", FILE.read_bytes())]
    assert kaggle.asked == 3
    (answer,) = recorded()
    assert pd.Timestamp(answer.pop("date")).tzinfo is not None
    assert not answer.pop("error")
    assert answer == {
        "ref": 41, "name": "vgg8", "message": "the first one", "sha256": submission.sha256(FILE),
        "status": "COMPLETE", "public_score": "0.70019", "private_score": "0.71245",
    }  # fmt: skip
    printed = capsys.readouterr().out
    for part in (SLUG, "locally 70.00%", "41: PENDING", "41: COMPLETE", "0.71245", "submissions/kaggle.json"):
        assert part in printed


def test_the_ensemble_is_sent_where_nothing_is_named_with_a_message_that_tells_it(kaggle):
    submit.main()
    assert [answer["name"] for answer in recorded()] == ["ensemble"]
    assert kaggle.sent[0][1] == "ensemble: out of fold 65.43%, revision no git"


def spoil(change):
    FILE.write_bytes(change(FILE.read_bytes()))


INVALID = {
    "a line too few": (lambda: spoil(lambda text: text[2:]), "has 7,177 lines instead of 7,178"),
    "class 7": (lambda: spoil(lambda text: text[:-2] + b"7\n"), "line 7178: '7' is no class"),
    "other classes": (
        lambda: spoil(lambda text: text[::-1][1:] + b"\n"),
        r"vgg8\.csv is not the file that submissions/scores\.csv scored; make both again: dvc repro -f score",
    ),
    "no file": (FILE.unlink, r"vgg8\.csv is missing; make it again with: "),
    "no scores": (submission.TABLE.unlink, r"scores\.csv is missing; make it with: make repro"),
    "a broken record": (
        lambda: submit.ANSWERS.write_text('[{"ref": 1'),
        r"kaggle\.json cannot be read .*mend or remove",
    ),
    "a record that is no text": (lambda: submit.ANSWERS.write_bytes(b"\xff\xfe["), r"kaggle\.json cannot be read"),
    "a record of another form": (lambda: submit.ANSWERS.write_text("{}"), r"kaggle\.json"),
    "a record of other things": (lambda: submit.ANSWERS.write_text('[{"ref": 1}]'), r"kaggle\.json"),
}


@pytest.mark.parametrize(("spoiling", "said"), INVALID.values(), ids=INVALID)
def test_what_is_not_fit_to_be_sent_is_refused_before_kaggle_is_asked_anything(kaggle, spoiling, said):
    spoiling()
    before = {path: path.read_bytes() for path in submission.FOLDER.iterdir()}
    with pytest.raises(Refusal, match=said):
        submit.main("vgg8")
    assert (kaggle.logins, kaggle.sent, kaggle.asked) == (0, [], 0)
    assert {path: path.read_bytes() for path in submission.FOLDER.iterdir()} == before


def test_an_unknown_name_is_refused_with_the_known_ones(kaggle):
    with pytest.raises(Refusal, match=r"no submission 'vgg9'; submissions/scores\.csv has vgg8, ensemble$"):
        submit.main("vgg9")
    assert kaggle.logins == 0


@pytest.mark.parametrize("force", ["", "0"])
@pytest.mark.parametrize("state", ["COMPLETE", "ERROR"])
def test_the_same_bytes_are_sent_again_only_by_force(kaggle, monkeypatch, state, force):
    past = {"ref": 40, "name": "other_name", "sha256": submission.sha256(FILE), "status": state}
    submit.ANSWERS.write_text(json.dumps([past]))
    monkeypatch.setenv("FORCE", force)
    with pytest.raises(Refusal, match=r"already has these bytes .*\(see submissions/kaggle\.json\).* with FORCE=1"):
        submit.main("vgg8")
    assert (kaggle.logins, recorded()) == (0, [past])
    submit.main("ensemble")  # other bytes
    monkeypatch.setenv("FORCE", "1")
    submit.main("vgg8")
    assert [answer["name"] for answer in recorded()] == ["other_name", "ensemble", "vgg8"]


@pytest.mark.parametrize(("ref", "message"), [(0, submit.UPLOAD_FAILED), (0, ""), (5, submit.UPLOAD_FAILED)])
def test_a_failed_upload_is_a_failure_and_not_recorded(kaggle, ref, message):
    kaggle.ref, kaggle.message = ref, message
    with pytest.raises(Refusal, match=rf"vgg8\.csv: the upload failed \({message or 'no answer'}\): .*{STANDS}$"):
        submit.main("vgg8")
    assert (recorded(), kaggle.asked) == ([], 0)


def test_an_error_of_kaggles_is_recorded_and_refused(kaggle):
    kaggle.states = ["PENDING", "ERROR"]
    with pytest.raises(Refusal, match=r"could not score submissions/vgg8\.csv: Evaluation raised an exception"):
        submit.main("vgg8")
    assert [(answer["status"], answer["error"]) for answer in recorded()] == [
        ("ERROR", "Evaluation raised an exception")
    ]


@pytest.mark.parametrize("state", ["PENDING", "not listed"])
def test_a_score_that_does_not_come_in_time_is_recorded_as_pending(kaggle, monkeypatch, state):
    monkeypatch.setattr(submit, "PATIENCE", -1)
    kaggle.states = [state]
    submit.main("vgg8")
    (answer,) = recorded()
    assert (answer["status"], kaggle.asked) == ("PENDING", 1)
    assert not answer["public_score"]
    assert not answer["private_score"]


def http_error(status):
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(response=response)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [(http_error(403), "HTTP 403: .*the competition's rules"), (requests.ConnectionError(), "cannot reach Kaggle")],
)
def test_what_kaggle_refuses_is_said_in_one_sentence_and_not_recorded(kaggle, trouble, said):
    kaggle.troubles = {"send": trouble}
    with pytest.raises(Refusal, match=rf"^submissions/vgg8\.csv: {said}.*; or {STANDS}$"):
        submit.main("vgg8")
    assert recorded() == []


@pytest.mark.parametrize("trouble", [http_error(429), requests.ReadTimeout(), KeyboardInterrupt()], ids=repr)
def test_what_was_sent_is_recorded_even_if_waiting_for_its_score_breaks_off(kaggle, trouble):
    kaggle.troubles = {"ask": trouble}
    with pytest.raises((Refusal, KeyboardInterrupt)):
        submit.main("vgg8")
    assert [answer["ref"] for answer in recorded()] == [41]


def test_a_score_that_is_still_to_come_is_waited_for_again_without_sending(kaggle):
    kaggle.troubles = {"ask": requests.ReadTimeout()}
    with pytest.raises(Refusal, match="cannot reach Kaggle"):
        submit.main("vgg8")
    kaggle.troubles = {}
    submit.main("vgg8")
    assert len(kaggle.sent) == 1
    assert [(answer["ref"], answer["status"]) for answer in recorded()] == [(41, "COMPLETE")]
