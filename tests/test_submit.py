"""Submission and leaderboard with the real Kaggle client and a local server."""

import itertools
import json
import re
from unittest.mock import Mock, patch

import loopback
import numpy as np
import pandas as pd
import pytest
from loopback import ALL, SECRETS, SIGNATURE, TOKEN, Failure

from pipeline import files
from pipeline.competition import SLUG
from pipeline.evaluation import board, submission
from pipeline.kaggle import client, leaderboard, records, submit

FILE, ENSEMBLE = (submission.FOLDER / f"{name}.csv" for name in ("vgg8", "ensemble"))
SCORED = {"status": "COMPLETE", "publicScore": "0.70019", "privateScore": "0.71245"}
WAITING = {"status": "PENDING"}
LIST, START, CREATE = "ListSubmissions", "StartSubmissionUpload", "CreateSubmission"


@pytest.fixture(autouse=True)
def kaggle(stand, monkeypatch):
    """Create a project with two scored submissions, and connect this process with a server that scores at once."""
    labels = np.random.default_rng(0).integers(0, 7, (2, 7178))
    pd.DataFrame({
        "name": ["vgg8", "ensemble"], "private_accuracy": [0.7, 0.71], "public_accuracy": 0.70019,
        "oof_accuracy": 0.65432, "private_low": 0.68, "private_high": 0.72, "private_no_duplicate": 0.69,
        "rank_2013": 2, "parameters": 1234, "train_seconds": 60, "data": "official",
        "sha256": [submission.write(FILE, labels[0]), submission.write(ENSEMBLE, labels[1])],
    }).to_csv(submission.TABLE, index=False)  # fmt: skip
    for server in loopback.connected(SLUG, stand, monkeypatch):
        server.verdicts = ALL(SCORED)
        yield server


def states():
    return [(record["ref"], record["status"]) for record in records.read()]


def metrics():
    return json.loads(records.METRICS.read_text())


def refused(*words, name="vgg8"):
    loopback.refused(words, submit.main, name)


def edit_scores(**columns):
    """Change columns of submissions/scores.csv."""
    pd.read_csv(submission.TABLE).assign(**columns).to_csv(submission.TABLE, index=False)


def add_by_hand(kaggle, ref, message="by hand"):
    """Add a scored submission to Kaggle's list that this project did not send."""
    kaggle.submissions.insert(0, {"ref": ref, "description": message, "bytes": b"", **SCORED})


def test_submission_is_printed_sent_scored_and_recorded(kaggle, capsys):
    kaggle.verdicts = itertools.chain([WAITING] * 3, ALL(SCORED))
    submit.main("vgg8", "the first one")
    requests = ["IntrospectToken", LIST, "GetSubmissionLimits", f"{START} vgg8.csv", "PUT", CREATE]
    assert list(dict.fromkeys(kaggle.requests)) == requests
    (sent,), digest = kaggle.submissions, submission.sha256(FILE)
    assert (sent["bytes"], sent["description"]) == (FILE.read_bytes(), f"[{digest[:12]}] the first one")
    (record,) = records.read()
    assert record.items() >= {
        "ref": 1001, "slug": SLUG, "name": "vgg8", "sha256": digest, "status": "COMPLETE", "public_score": 0.70019,
        "private_score": 0.71245, "error": None,
    }.items()  # fmt: skip
    assert metrics() == {"vgg8": {"public_accuracy": 0.70019, "private_accuracy": 0.71245}}
    out = capsys.readouterr().out
    assert re.search(rf"(?s){digest}.*the first one.*2 submissions today.*public 70.02%, private 71.25%", out)
    assert not any(secret in out + records.PATH.read_text() for secret in SECRETS)


@pytest.mark.parametrize(("message", "damage"), {
    "(drawn)": lambda: edit_scores(data="drawn"), "(folders)": lambda: edit_scores(data="folders"),
    "7,177 lines": lambda: FILE.write_bytes(FILE.read_bytes()[2:]),
    "not the file that": lambda: FILE.write_bytes(FILE.read_bytes()[::-1][1:] + b"\n"),
    "kaggle.json is damaged": lambda: records.PATH.write_text('[{"ref": 1}]'),
}.items())  # fmt: skip
def test_invalid_files_are_refused_before_any_request(kaggle, message, damage):
    damage()
    refused(message)
    assert kaggle.requests == []


def test_same_bytes_are_sent_again_only_by_force(kaggle, capsys):
    refused("vgg8, ensemble", name="vgg9")
    kaggle.limits = {"numToday": 0, "numTotal": 0, "numAllowedNow": 0}  # before an account's first submission
    submit.main("vgg8", "from another checkout")
    assert "unknown number" in capsys.readouterr().out
    records.PATH.unlink()
    for ref in range(5000, 5130):  # more than a page
        add_by_hand(kaggle, ref)
    submit.main("vgg8")
    assert "submission 1001: not sent again" in capsys.readouterr().out
    assert (len(kaggle.submissions), states()) == (131, [(1001, "COMPLETE")])
    submit.main("vgg8", force=True)
    assert (len(kaggle.submissions), len(records.read())) == (132, 2)


def test_the_state_of_equal_bytes_with_two_names_is_updated_for_both():
    sent, lines = [], [{"name": name, "sha256": "0" * 64} for name in ("vgg8", "ensemble")]
    for status in ("PENDING", "COMPLETE"):
        state = {"ref": 1, "status": status, "public_score": None, "private_score": None, "error": None}
        records.update(sent, [state | {"message": records.mark("0" * 64)}], lines, SLUG)
        assert [(record["name"], record["status"]) for record in sent] == [("vgg8", status), ("ensemble", status)]


def test_nothing_is_sent_while_locked_or_without_remaining_submissions(kaggle):
    with files.locked(records.LOCK, "tests"):
        refused("another process submits", str(records.LOCK))
    kaggle.limits = {"numToday": 2, "numTotal": 9, "numAllowedNow": 0}
    refused("no submission is left today", submit.ALTERNATIVE)
    assert (kaggle.submissions, records.read()) == ([], [])


@pytest.mark.parametrize(("operation", "failure"), [
    (START, Failure(404)), (CREATE, Failure(403, "Submissions are closed")),
], ids=str)  # fmt: skip
def test_closed_competition_is_no_error(kaggle, capsys, operation, failure):
    kaggle.script |= {operation: ALL(failure), "GetSubmissionLimits": ALL(Failure(404))}
    submit.main("vgg8")  # status 0
    wanted = rf"(?s)accepts no submissions \(HTTP {failure.status}.*public 70.02%, private 70.00%"
    assert re.search(wanted, capsys.readouterr().out)
    assert (records.read(), kaggle.submissions) == ([], [])


@pytest.mark.parametrize(("operation", "failure", "words", "times"), [  # times: number of requests
    (START, Failure(500), "HTTP 500", 6), ("PUT", Failure(403), "the upload failed", 1),
    # Refusals that the user can resolve do not mean that the competition is closed.
    (CREATE, Failure(403, "You must accept this competition's rules"), "/rules", 1),
    (CREATE, Failure(400, "Submission not allowed: daily allowance (2) used today"), "HTTP 400", 1),
    (CREATE, Failure(403, f"{TOKEN} at http://storage.local/x?{SIGNATURE}\x1b[31m\n red"), "(secret) at (address)", 1),
], ids=lambda each: str(each)[:60])  # fmt: skip
def test_refusal_is_reported_without_secrets_and_not_recorded(kaggle, operation, failure, words, times):
    kaggle.script[operation] = ALL(failure)
    refused(words, "; or ")
    assert (records.read(), kaggle.submissions) == ([], [])
    assert len([each for each in kaggle.requests if each.startswith(operation)]) == times


def test_scoring_error_is_recorded_and_reported(kaggle):
    kaggle.verdicts = iter([WAITING, {"status": "ERROR", "errorDescription": f"at http://storage.local/x?{SIGNATURE}"}])
    refused("could not score submission 1001", "(address)")
    assert (states(), metrics()) == ([(1001, "ERROR")], {})
    assert SIGNATURE not in records.PATH.read_text()


@pytest.mark.parametrize("failure", [{"silent": True}, {"status": 502}, {"content": b"{}"}], ids=str)
def test_submission_whose_response_was_lost_is_not_repeated(kaggle, monkeypatch, failure):
    monkeypatch.setattr(client, "TIMEOUT", (5, 0.3 if "silent" in failure else 20))
    kaggle.script[CREATE] = iter([Failure(**failure, happens=True)])
    refused()
    assert (kaggle.requests.count(CREATE), states()) == (1, [(None, "SENDING")])
    submit.main("vgg8")
    assert (len(kaggle.submissions), states()) == (1, [(1001, "COMPLETE")])


def test_unconfirmed_submission_is_sent_again_only_by_force(kaggle):
    kaggle.script[CREATE] = iter([Failure(cut=True)])
    refused()
    refused("did not confirm", "FORCE=1")
    assert kaggle.submissions == []
    submit.main("vgg8", force=True)
    assert (len(kaggle.submissions), states()[-1]) == (1, (1001, "COMPLETE"))


def test_submission_that_cannot_be_recorded_is_not_sent(kaggle, monkeypatch):
    monkeypatch.setattr(files, "write_json", Mock(side_effect=OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        submit.main("vgg8")
    assert (kaggle.submissions, records.read()) == ([], [])


def test_submission_is_recorded_if_waiting_for_its_score_fails_or_takes_long(kaggle, capsys):
    kaggle.script[LIST] = itertools.chain([None], ALL(Failure(503)))
    refused("the list of submissions")
    assert states() == [(1001, "PENDING")]
    kaggle.script.clear()
    kaggle.verdicts = itertools.chain([WAITING], ALL(SCORED))
    with patch.object(submit, "TIMEOUT", -1):
        submit.main("vgg8")
    assert "sends nothing" in capsys.readouterr().out
    submit.main("vgg8")
    assert (len(kaggle.submissions), states()) == (1, [(1001, "COMPLETE")])


def leaderboard_text(capsys, refresh=False):
    capsys.readouterr()
    leaderboard.main(refresh)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    return out


def test_leaderboard_shows_kaggles_scores_and_differences(kaggle, capsys):
    assert "Kaggle  " not in leaderboard_text(capsys)
    assert kaggle.requests == []
    submit.main("vgg8")
    hidden = dict.fromkeys(pd.read_csv(submission.TABLE).filter(regex="^(public|private|rank)_"), "unknown")
    for columns, cells in (({}, "71.25% +1.25 70.02% +0.00"), (hidden, "71.25% 70.02%")):
        edit_scores(**columns)
        assert f"\nvgg8 COMPLETE {cells}\n" in re.sub(" +", " ", leaderboard_text(capsys))
    edit_scores(sha256="0" * 64)
    assert "71.25%" not in leaderboard_text(capsys, refresh=True), "a score of other bytes is not shown"
    assert (metrics(), len(records.read())) == ({}, 1)


@pytest.mark.parametrize(("form", "start"), [("md", "|"), ("csv", "name,private_accuracy,"), ("json", "[\n")])
def test_leaderboard_for_other_programs_is_sorted_by_out_of_fold_accuracy(capsys, form, start):
    edit_scores(oof_accuracy=[0.6, 0.7])
    leaderboard.main(form=form)
    out = capsys.readouterr().out
    assert out.startswith(start)
    assert re.findall("ensemble|vgg8", out) == ["ensemble", "vgg8"]


def test_refresh_adds_new_scores_and_submissions_of_other_checkouts(kaggle, monkeypatch, capsys):
    monkeypatch.setattr(submit, "TIMEOUT", -1)
    submit.main("vgg8")
    add_by_hand(kaggle, 2002, records.mark(submission.sha256(ENSEMBLE)))
    add_by_hand(kaggle, 3003)
    assert leaderboard_text(capsys, refresh=True).count("71.25%") == 2
    assert states() == [(1001, "COMPLETE"), (2002, "COMPLETE")]
    assert set(metrics()) == {"vgg8", "ensemble"}


def test_leaderboard_states_the_kind_of_data(capsys):
    for kind in ("official", "unofficial", "drawn"):
        edit_scores(data=kind)
        out = " ".join(leaderboard_text(capsys).split())
        assert {name for name, note in board.NOTES.items() if note in out} == {kind} - {"official"}
