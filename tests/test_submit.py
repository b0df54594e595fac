"""Submission and board against a Kaggle on this machine, through the real client."""

import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import settings
from loopback import ALL, SECRETS, SIGNATURE, TOKEN, Server, Trouble, in_this_process

from pipeline import files
from pipeline.competition import SLUG
from pipeline.errors import UserError
from pipeline.evaluation import board, submission
from pipeline.kaggle import leaderboard, records, submit

FILE = submission.FOLDER / "vgg8.csv"
SCORED = {"status": "COMPLETE", "publicScore": "0.70019", "privateScore": "0.71245"}
LOGIN, LIST, LIMITS, START, CREATE = (
    "IntrospectToken", "ListSubmissions", "GetSubmissionLimits", "StartSubmissionUpload", "CreateSubmission",
)  # fmt: skip


@pytest.fixture
def kaggle():
    server = Server(SLUG)
    server.verdicts = itertools.repeat(SCORED)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def here(kaggle, stand, monkeypatch):
    """A folder with two scored submissions, whose Kaggle this is; the pauses are noted instead of waited for."""
    settings.write({"source": "kaggle"})
    lines = []
    for seed, name in enumerate(("vgg8", "ensemble")):
        labels = np.random.default_rng(seed).integers(0, 7, 7178)
        digest = submission.write(submission.FOLDER / f"{name}.csv", labels)
        lines.append({
            "name": name, "parameters": 1234, "oof_accuracy": 0.65432, "public_accuracy": 0.70019,
            "private_accuracy": 0.7 + seed / 100, "private_low": 0.68, "private_high": 0.72,
            "private_no_duplicate": 0.69, "rank_2013": 2, "train_seconds": 60, "sha256": digest, "data": "official",
        })  # fmt: skip
    pd.DataFrame(lines).to_csv(submission.TABLE, index=False)
    (stand / "home").mkdir()
    return in_this_process(kaggle, stand / "home", monkeypatch)


def states():
    return [(record["ref"], record["status"]) for record in records.read()]


def metrics():
    return json.loads(records.METRICS.read_text()) if records.METRICS.exists() else {}


def refused(*words, name="vgg8", force=False):
    with pytest.raises(UserError) as refusal:
        submit.main(name, "", force)
    said = str(refusal.value)
    assert all(word in said for word in words), said
    assert not any(secret in said for secret in (*SECRETS, "\n", "\x1b"))
    return said


def of(data):
    pd.read_csv(submission.TABLE).assign(data=data).to_csv(submission.TABLE, index=False)


def test_a_submission_is_shown_sent_waited_for_and_recorded(kaggle, capsys):
    kaggle.verdicts = itertools.chain([{"status": "PENDING"}] * 3, itertools.repeat(SCORED))
    submit.main("vgg8", "the first one")
    assert list(dict.fromkeys(kaggle.requests)) == [LOGIN, LIST, LIMITS, f"{START} vgg8.csv", "PUT", CREATE]
    (sent,) = kaggle.submissions
    digest = submission.sha256(FILE)
    assert (sent["bytes"], sent["description"]) == (FILE.read_bytes(), f"[{digest[:12]}] the first one")
    (record,) = records.read()
    assert record.items() >= {
        "ref": 1001, "slug": SLUG, "name": "vgg8", "sha256": digest, "status": "COMPLETE", "public_score": 0.70019,
        "private_score": 0.71245, "error": None,
    }.items()  # fmt: skip
    assert metrics() == {"vgg8": {"public_accuracy": 0.70019, "private_accuracy": 0.71245}}
    shown = capsys.readouterr().out
    assert all(word in shown for word in (digest, "2 left today", "public 70.02%, private 71.25%", "the first one"))
    assert not any(secret in shown + records.PATH.read_text() for secret in SECRETS)


@pytest.mark.parametrize("trouble", [None, Trouble(404), Trouble(content=b"<html>")], ids=str)
def test_entries_that_kaggle_does_not_tell_are_no_hindrance(kaggle, capsys, trouble):
    kaggle.limits = {"numToday": 0, "numTotal": 0, "numAllowedNow": 0}  # as for an account's first entry
    kaggle.script[LIMITS] = ALL(trouble)
    submit.main("vgg8")
    assert "unknown how many" in capsys.readouterr().out
    assert len(kaggle.submissions) == 1


INVALID = {
    "drawn faces": (lambda: of("drawn"), "not the competition's"),
    "pictures in folders": (lambda: of("folders"), "not the competition's"),
    "a line too few": (lambda: FILE.write_bytes(FILE.read_bytes()[2:]), "7,177 lines"),
    "other classes": (lambda: FILE.write_bytes(FILE.read_bytes()[::-1][1:] + b"\n"), "not the file that"),
    "a damaged record": (lambda: records.PATH.write_text('[{"ref": 1}]'), "kaggle.json is damaged"),
}


@pytest.mark.parametrize(("spoil", "said"), INVALID.values(), ids=INVALID)
def test_what_is_not_fit_to_be_sent_is_refused_before_kaggle_is_asked_anything(kaggle, spoil, said):
    spoil()
    refused(said)
    assert kaggle.requests == []


def test_the_same_bytes_are_sent_again_only_by_force(kaggle, capsys):
    refused("vgg8, ensemble", name="vgg9")
    submit.main("vgg8", "from another checkout")
    records.PATH.unlink()
    for number in range(130):  # more than a page
        kaggle.submissions.insert(0, {"ref": 5000 + number, "description": "by hand", "bytes": b"", **SCORED})
    submit.main("vgg8")
    assert len(kaggle.submissions) == 131
    assert "submission 1001: not sent again" in capsys.readouterr().out
    assert [(each["name"], each["ref"], each["private_score"]) for each in records.read()] == [("vgg8", 1001, 0.71245)]
    submit.main("vgg8", force=True)
    assert (len(kaggle.submissions), len(records.read())) == (132, 2)


def test_two_at_once_do_not_send_nor_does_one_without_an_entry_left(kaggle):
    with files.alone(submit.LOCK, "tests"):
        refused("another process submits", str(submit.LOCK))
    kaggle.limits = {"numToday": 2, "numTotal": 9, "numAllowedNow": 0}
    refused("no entry is left today", submit.OTHERWISE)
    assert (kaggle.submissions, records.read()) == ([], [])


@pytest.mark.parametrize(("operation", "trouble"), [
    (START, Trouble(404, "Not found")), (START, Trouble(400, "Submission not allowed: the deadline is over")),
    (CREATE, Trouble(403, "Submissions are closed")), (CREATE, Trouble(404)),
], ids=str)  # fmt: skip
def test_a_competition_that_takes_no_submissions_is_a_normal_outcome(kaggle, capsys, operation, trouble):
    kaggle.script[operation] = ALL(trouble)
    submit.main("vgg8")  # status 0
    shown = capsys.readouterr().out
    assert f"takes no submission (HTTP {trouble.status}" in shown
    assert "public 70.02%, private 70.00%" in shown
    assert (records.read(), kaggle.submissions) == ([], [])


@pytest.mark.parametrize(("operation", "trouble", "words", "times"), [  # times: how often it is asked
    (LIST, Trouble(401, "Unauthenticated"), "HTTP 401", 1), (LIST, Trouble(404), "data.slug", 1),
    (LIST, Trouble(content=b'{"code": 403}'), "/rules", 1), (LIST, Trouble(content=b"<html>log in</html>"), "proxy", 1),
    (LIST, Trouble(content=b'{"submissions": [{"ref": "x"}]}'), "proxy", 1), (START, Trouble(500), "HTTP 500", 6),
    ("PUT", Trouble(403), "the upload failed", 1), (CREATE, Trouble(429), "wait some minutes", 1),
    # What the user can change is no closed competition.
    (CREATE, Trouble(403, "You must accept this competition's rules"), "/rules", 1),
    (CREATE, Trouble(400, "Submission not allowed: daily allowance (2) used today"), "HTTP 400", 1),
    (CREATE, Trouble(403, f"{TOKEN} at http://storage.local/x?{SIGNATURE}\x1b[31m\n red"), "(secret) at (address)", 1),
], ids=lambda each: str(each)[:60])  # fmt: skip
def test_what_kaggle_refuses_is_told_without_secrets_and_not_recorded(kaggle, operation, trouble, words, times):
    kaggle.script[operation] = ALL(trouble)
    refused(words, "run this again" if operation == "PUT" else "; or ")
    assert (records.read(), kaggle.submissions) == ([], [])
    assert len([each for each in kaggle.requests if each.startswith(operation)]) == times


@pytest.mark.parametrize("reason", [f"see http://storage.local/x?{SIGNATURE}", None])
def test_an_error_of_kaggles_is_recorded_and_told(kaggle, reason):
    kaggle.verdicts = iter([{"status": "PENDING"}, {"status": "ERROR", "errorDescription": reason}])
    refused("could not score submission 1001", "(address)" if reason else "no reason")
    assert (states(), metrics()) == ([(1001, "ERROR")], {})
    assert SIGNATURE not in records.PATH.read_text()


@pytest.mark.parametrize("trouble", [
    Trouble(cut=True), Trouble(silent=True), Trouble(502), Trouble(content=b"{}"), Trouble(content=b"<html>"),
], ids=str)  # fmt: skip
def test_a_submission_whose_answer_was_lost_is_never_made_twice(kaggle, trouble):
    kaggle.script[CREATE] = iter([replace(trouble, happens=True)])
    refused()
    assert (kaggle.requests.count(CREATE), states()) == (1, [(None, "SENDING")])
    submit.main("vgg8")
    assert (len(kaggle.submissions), states()) == (1, [(1001, "COMPLETE")])


def test_what_may_not_have_arrived_is_sent_again_by_force_alone(kaggle):
    kaggle.script[CREATE] = iter([Trouble(cut=True)])
    refused()
    refused("without an answer", "FORCE=1")
    assert kaggle.submissions == []
    submit.main("vgg8", force=True)
    assert (len(kaggle.submissions), states()[-1]) == (1, (1001, "COMPLETE"))


def test_what_cannot_be_noted_is_not_sent(kaggle):
    records.METRICS.mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        submit.main("vgg8")
    assert kaggle.submissions == []


def test_what_was_sent_is_recorded_even_if_waiting_for_its_score_breaks_off(kaggle, monkeypatch, capsys):
    kaggle.script[LIST] = itertools.chain([None, None], itertools.repeat(Trouble(503)))
    kaggle.submissions.append({"ref": 1, "description": "by hand", "bytes": b"", **SCORED})
    refused("the list of submissions")
    assert states() == [(1002, "PENDING")]
    kaggle.script.clear()
    kaggle.verdicts = itertools.chain([{"status": "PENDING"}], itertools.repeat(SCORED))
    with monkeypatch.context() as patch:
        patch.setattr(submit, "PATIENCE", -1)
        submit.main("vgg8")
    assert "waits on, and sends nothing" in capsys.readouterr().out
    submit.main("vgg8")
    assert (len(kaggle.submissions), states()) == (2, [(1002, "COMPLETE")])


def shown(capsys, refresh=False):
    capsys.readouterr()
    leaderboard.main(refresh)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    return out


def kaggle_line(out, name):
    return [line.split()[1:] for line in out.splitlines() if line.startswith(f"{name} ")][-1]


def test_the_board_shows_kaggles_scores_and_how_far_they_differ(kaggle, capsys):
    assert "Kaggle  " not in shown(capsys)
    assert kaggle.requests == []
    submit.main("vgg8")
    assert kaggle_line(shown(capsys), "vgg8") == ["COMPLETE", "71.25%", "+1.25", "70.02%", "+0.00"]
    table = pd.read_csv(submission.TABLE).astype(object)
    table[[name for name in table if name.startswith(("public_", "private_", "rank_"))]] = "unknown"
    table.to_csv(submission.TABLE, index=False)
    assert kaggle_line(shown(capsys), "vgg8") == ["COMPLETE", "71.25%", "70.02%"]


def test_the_board_is_printed_for_other_programs_the_best_out_of_fold_first(capsys):
    pd.read_csv(submission.TABLE).assign(oof_accuracy=[0.6, 0.7]).to_csv(submission.TABLE, index=False)
    found = {}
    for form in ("md", "csv", "json"):
        leaderboard.main(form=form)
        found[form] = capsys.readouterr().out
    table = pd.read_csv(submission.TABLE)[::-1].reset_index(drop=True)
    assert pd.read_csv(io.StringIO(found["csv"])).equals(table)
    assert [line["name"] for line in json.loads(found["json"])] == ["ensemble", "vgg8"]
    lines = [[cell.strip() for cell in line.split("|")[1:3]] for line in found["md"].splitlines()]
    assert lines[2:5] == [["ensemble", "70.00%"], ["vgg8", "60.00%"], ["1. RBM", ""]]


def test_a_score_of_other_bytes_is_not_shown_for_these(kaggle, capsys):
    submit.main("vgg8")
    table = pd.read_csv(submission.TABLE)
    table.loc[0, "sha256"] = "0" * 64
    table.to_csv(submission.TABLE, index=False)
    assert "71.25%" not in shown(capsys, refresh=True)
    assert (metrics(), len(records.read())) == ({}, 1)


def test_a_refresh_brings_what_kaggle_has_judged_since_and_what_others_sent(kaggle, monkeypatch, capsys):
    monkeypatch.setattr(submit, "PATIENCE", -1)
    kaggle.verdicts = iter([{"status": "PENDING"}])
    submit.main("vgg8")
    mark = records.mark(submission.sha256(submission.FOLDER / "ensemble.csv"))
    for ref, message in ((2002, f"{mark} sent elsewhere"), (3003, "by hand")):
        kaggle.submissions.insert(0, {"ref": ref, "description": message, "bytes": b"", **SCORED})
    kaggle.verdicts = itertools.repeat(SCORED)
    assert shown(capsys, refresh=True).count("71.25%") == 2
    assert states() == [(1001, "COMPLETE"), (2002, "COMPLETE")]
    assert set(metrics()) == {"vgg8", "ensemble"}


@pytest.mark.parametrize("kind", ["official", "unofficial", "drawn"])
def test_the_board_tells_what_data_the_scores_are_of(capsys, kind):
    of(kind)
    out = " ".join(shown(capsys).split())
    assert {name for name, note in board.NOTES.items() if note in out} == {kind} - {"official"}
