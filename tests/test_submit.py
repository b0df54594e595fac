"""Submission and board against a Kaggle on this machine, through the real client."""

import itertools
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from loopback import ALL, KEY, SIGNATURE, TOKEN, Server, Trouble, in_this_process

from pipeline import params
from pipeline.competition import SLUG
from pipeline.errors import UserError
from pipeline.evaluation import submission
from pipeline.kaggle import answers, leaderboard, submit

ROOT = Path(__file__).parent.parent
STANDS = "keep the local score, which stands in submissions/scores.csv"
FILE = submission.FOLDER / "vgg8.csv"
SCORED = {"status": "COMPLETE", "publicScore": "0.70019", "privateScore": "0.71245"}
LOGIN, LIST, LIMITS = "IntrospectToken", "ListSubmissions", "GetSubmissionLimits"
SENDING = [LOGIN, LIST, LIMITS, "StartSubmissionUpload vgg8.csv", "PUT", "CreateSubmission"]
SENT = [*SENDING, LIST]


@pytest.fixture
def kaggle():
    server = Server(SLUG)
    server.verdicts = itertools.repeat(SCORED)
    yield server
    server.close()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with two scored submissions."""
    monkeypatch.chdir(tmp_path)
    for variable in ("FORCE", "REFRESH"):
        monkeypatch.delenv(variable, raising=False)
    Path("params.yaml").write_text(
        "seed: 1\nbackend: auto\nduplicates: keep\n"
        f"data: {{source: kaggle, slug: {SLUG}, training_faces: 14, test_faces: 7}}\n"
        "folds: [0, 1]\ntrain: {}\narchitectures: {}\nstudents: {}\nensemble: {}\nspeedrun: {}\n"
    )
    lines = []
    for seed, name in enumerate(("vgg8", "ensemble")):
        labels = np.random.default_rng(seed).integers(0, 7, 7178)
        digest = submission.write(submission.FOLDER / f"{name}.csv", labels)
        lines.append({
            "name": name, "parameters": 1234, "oof_accuracy": 0.65432, "public_accuracy": 0.70019,
            "private_accuracy": 0.7 + seed / 100, "private_low": 0.68, "private_high": 0.72, "private_no_duplicate": 0.69,
            "rank_2013": 2, "train_seconds": 60, "sha256": digest, "data": "official",
        })  # fmt: skip
    pd.DataFrame(lines).to_csv(submission.TABLE, index=False)
    (tmp_path / "home").mkdir()
    return tmp_path


@pytest.fixture
def here(kaggle, project, monkeypatch):
    """The commands in this process, with pauses that are noted instead of waited for."""
    return in_this_process(kaggle, project / "home", monkeypatch)


def recorded() -> list[dict]:
    return json.loads(answers.PATH.read_text()) if answers.PATH.exists() else []


def metrics() -> dict:
    return json.loads(answers.METRICS.read_text()) if answers.METRICS.exists() else {}


def refused(*words: str, name: str = "vgg8", message: str = "") -> str:
    with pytest.raises(UserError) as refusal:
        submit.main(name, message)
    for word in words:
        assert word in str(refusal.value)
    for secret in (TOKEN, KEY, SIGNATURE, "storage.local"):
        assert secret not in str(refusal.value)
    return str(refusal.value)


def run(kaggle: Server, project: Path, *words: str, module: str = "submit", **more: str) -> subprocess.CompletedProcess:
    """Run a command as a user does; whatever happens, it shows no secret and no traceback."""
    environment = kaggle.environment(project / "home", PYTHONPATH=str(ROOT), KAGGLE_API_TOKEN=TOKEN, **more)
    done = subprocess.run([sys.executable, "-m", f"pipeline.{module}", *words], env=environment, cwd=project,
                          text=True, capture_output=True, timeout=100, check=False)  # fmt: skip
    for secret in (TOKEN, KEY, SIGNATURE, "storage.local", "Traceback"):
        assert secret not in done.stdout + done.stderr
    return done


# The good way.


def test_a_submission_is_shown_sent_waited_for_and_recorded(kaggle, project):
    pending = {"status": "PENDING"}
    kaggle.verdicts = itertools.chain([pending] * 3, itertools.repeat(SCORED))
    done = run(kaggle, project, "vgg8", "the first one")
    assert done.returncode == 0, done.stderr
    assert kaggle.requests == [*SENDING, *[LIST] * 4]
    (sent,) = kaggle.submissions
    digest = submission.sha256(FILE)
    message = f"[{digest[:12]}] the first one"
    assert (sent["bytes"], sent["description"]) == (FILE.read_bytes(), message)
    (answer,) = recorded()
    assert abs(pd.Timestamp.now(UTC) - pd.Timestamp(answer.pop("date"))) < pd.Timedelta(minutes=2)
    assert answer == {
        "ref": 1001, "slug": SLUG, "name": "vgg8", "message": message, "sha256": digest, "status": "COMPLETE",
        "public_score": 0.70019, "private_score": 0.71245, "error": None,
    }  # fmt: skip
    assert metrics() == {"vgg8": {"public_accuracy": 0.70019, "private_accuracy": 0.71245}}
    shown = done.stdout
    for part in (f"{FILE}: 14,356 bytes, SHA-256 {digest}", f"competitions/{SLUG}", message, "2 left today",
                 "locally  public 70.02%, private 70.00%", "submission 1001: PENDING", "submission 1001: COMPLETE",
                 "Kaggle   public 70.02%, private 71.25%"):  # fmt: skip
        assert part in shown
    assert shown.count("PENDING") == 1  # no line a look where nobody looks
    assert done.stderr == ""


def test_on_a_terminal_the_wait_is_one_line_that_changes(kaggle, project):
    kaggle.verdicts = itertools.chain([{"status": "PENDING"}] * 2, itertools.repeat(SCORED))
    master, slave = os.openpty()
    environment = kaggle.environment(project / "home", PYTHONPATH=str(ROOT), KAGGLE_API_TOKEN=TOKEN)
    done = subprocess.run([sys.executable, "-m", "pipeline.kaggle.submit", "vgg8"], env=environment, cwd=project,
                          stdout=slave, stderr=subprocess.STDOUT, timeout=100, check=False)  # fmt: skip
    os.close(slave)
    shown = os.read(master, 10**6).decode()
    os.close(master)
    assert done.returncode == 0, shown
    (line,) = [line for line in shown.split("\r\n") if "PENDING" in line]
    assert re.fullmatch(r"(submission 1001: PENDING after \d+ s\r){2}submission 1001: COMPLETE after \d+ s", line)


def test_the_ensemble_is_sent_where_nothing_is_named_with_a_message_that_tells_it(here, kaggle):
    submit.main()
    digest = submission.sha256(submission.FOLDER / "ensemble.csv")
    assert [answer["name"] for answer in recorded()] == ["ensemble"]
    assert kaggle.submissions[0]["description"] == f"[{digest[:12]}] ensemble: out of fold 65.43%, no git"


@pytest.mark.parametrize("status", [None, 404, 500])
def test_entries_that_kaggle_does_not_tell_are_unknown_and_no_hindrance(here, kaggle, capsys, status):
    kaggle.limits = {"numToday": 0, "numTotal": 0, "numAllowedNow": 0}  # as for an account's first entry
    if status:
        kaggle.script[LIMITS] = ALL(Trouble(status))
    submit.main("vgg8")
    assert "entries  unknown how many are left today" in capsys.readouterr().out
    assert len(kaggle.submissions) == 1


# What is not sent.


def spoil(change):
    FILE.write_bytes(change(FILE.read_bytes()))


RECORD = dict.fromkeys(answers.KEYS) | {"date": "2026-11-22T08:00:00Z", "message": ""}


def of(data):
    pd.read_csv(submission.TABLE).assign(data=data).to_csv(submission.TABLE, index=False)


INVALID = {
    "drawn faces": (lambda: of("drawn"), "vgg8.csv is of drawn faces, not of the competition's"),
    "pictures in folders": (lambda: of("folders"), "vgg8.csv is of pictures in folders"),
    "a line too few": (lambda: spoil(lambda text: text[2:]), "has 7,177 lines instead of 7,178"),
    "class 7": (lambda: spoil(lambda text: text[:-2] + b"7\n"), "line 7178: '7' is no class"),
    "other classes": (
        lambda: spoil(lambda text: text[::-1][1:] + b"\n"),
        "vgg8.csv is not the file that submissions/scores.csv scored; make both again: dvc repro -f score",
    ),
    "no file": (FILE.unlink, "vgg8.csv is missing; make it again with: "),
    "no scores": (submission.TABLE.unlink, "scores.csv is missing; make it with: make repro"),
    "a broken record": (lambda: answers.PATH.write_text('[{"ref": 1'), "kaggle.json cannot be read"),
    "a record that is no text": (lambda: answers.PATH.write_bytes(b"\xff\xfe["), "kaggle.json cannot be read"),
    "a record of another form": (lambda: answers.PATH.write_text("{}"), "kaggle.json"),
    "a record of other things": (lambda: answers.PATH.write_text('[{"ref": 1}]'), "kaggle.json"),
    "a record that is a number": (lambda: answers.PATH.write_text("[1]"), "kaggle.json"),
}


@pytest.mark.parametrize(("spoiling", "said"), INVALID.values(), ids=INVALID)
def test_what_is_not_fit_to_be_sent_is_refused_before_kaggle_is_asked_anything(here, kaggle, spoiling, said):
    spoiling()
    before = {path: path.read_bytes() for path in submission.FOLDER.iterdir()}
    refused(said)
    assert kaggle.requests == []
    assert {path: path.read_bytes() for path in submission.FOLDER.iterdir()} == before


def test_an_unknown_name_is_refused_with_the_known_ones(here, kaggle):
    refused("no submission 'vgg9'; submissions/scores.csv has vgg8, ensemble", name="vgg9")
    assert kaggle.requests == []


@pytest.mark.parametrize("force", ["", "0"])
@pytest.mark.parametrize("state", ["COMPLETE", "ERROR"])
def test_the_same_bytes_are_sent_again_only_by_force(here, kaggle, monkeypatch, state, force):
    past = RECORD | {"ref": 40, "slug": SLUG, "name": "other", "sha256": submission.sha256(FILE), "status": state}
    answers.PATH.write_text(json.dumps([past]))
    monkeypatch.setenv("FORCE", force)
    refused("already has these bytes", f"submission 40, {state} (see submissions/kaggle.json)", "with FORCE=1")
    assert (kaggle.requests, recorded()) == ([], [past])
    submit.main("ensemble")  # other bytes
    monkeypatch.setenv("FORCE", "1")
    submit.main("vgg8")
    assert [answer["name"] for answer in recorded()] == ["other", "ensemble", "vgg8"]
    assert len(kaggle.submissions) == 2


def test_another_competition_has_not_got_them(here, kaggle):
    past = RECORD | {"ref": 40, "slug": "another", "name": "vgg8", "sha256": submission.sha256(FILE), "status": "ERROR"}
    answers.PATH.write_text(json.dumps([past]))
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1


def test_bytes_that_another_checkout_sent_are_not_sent_again(here, kaggle, capsys):
    submit.main("vgg8", "from the other one")
    answers.PATH.unlink()
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1
    assert "already has these bytes, as submission 1001: not sent again" in capsys.readouterr().out
    (answer,) = recorded()
    assert (answer["name"], answer["status"], answer["private_score"]) == ("vgg8", "COMPLETE", 0.71245)
    assert answer.keys() == answers.KEYS.keys()


def test_where_no_entry_is_left_nothing_is_sent(here, kaggle):
    kaggle.limits = {"numToday": 2, "numTotal": 9, "numAllowedNow": 0}
    refused("no entry is left today: run this again in ", STANDS)
    assert kaggle.requests == [LOGIN, LIST, LIMITS]
    assert recorded() == []


@pytest.mark.parametrize(
    ("now", "left"),
    [("2026-11-23T18:30", "5 h 30 min"), ("2026-12-31T23:59:30", "0 h 01 min"), ("2026-01-01T00:00", "24 h 00 min")],
)
def test_kaggles_day_ends_at_midnight_in_greenwich(now, left):
    assert submit.until_tomorrow(datetime.fromisoformat(now).replace(tzinfo=UTC)) == left


# What Kaggle refuses.

CLOSED = {
    "StartSubmissionUpload": [Trouble(404, "Not found"), Trouble(400, "Submission not allowed: the deadline is over")],
    "CreateSubmission": [Trouble(400, "Submission not allowed"), Trouble(403, "Submissions are closed"), Trouble(404)],
}


@pytest.mark.parametrize(
    ("operation", "trouble"), [(key, each) for key, troubles in CLOSED.items() for each in troubles]
)
def test_a_competition_that_takes_no_submissions_is_a_normal_answer(here, kaggle, capsys, operation, trouble):
    kaggle.script[operation] = ALL(trouble)
    submit.main("vgg8")  # status 0
    shown = capsys.readouterr().out
    assert f"{SLUG} takes no submission (HTTP {trouble.status}" in shown
    assert trouble.words in shown
    assert "The local score stands: public 70.02%, private 70.00%" in shown
    assert (recorded(), kaggle.submissions) == ([], [])


def test_a_closed_competition_as_the_command_says_it(kaggle, project):
    kaggle.script["CreateSubmission"] = ALL(Trouble(400, "Submission not allowed"))
    done = run(kaggle, project, "vgg8")
    assert done.returncode == 0
    assert 'takes no submission (HTTP 400: "Submission not allowed")' in done.stdout
    assert recorded() == []


@pytest.mark.parametrize("status", [403, 404, 410, 500])
def test_an_upload_that_fails_is_a_failure_and_not_recorded(here, kaggle, status):
    """The client says of it "Could not submit to competition", with ref 0, and exits with 0."""
    kaggle.script["PUT"] = ALL(Trouble(status))
    refused(f"{FILE}: the upload failed (Could not submit to competition): run this again", STANDS)
    assert (recorded(), kaggle.submissions) == ([], [])
    assert kaggle.requests == [*SENDING[:4], *["PUT"] * (6 if status == 500 else 1)]


def test_an_upload_that_fails_as_the_command_says_it(kaggle, project):
    kaggle.script["PUT"] = ALL(Trouble(403))
    done = run(kaggle, project, "vgg8")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {FILE}: the upload failed")
    assert len(done.stderr.splitlines()) == 1


def test_an_upload_that_fails_once_is_tried_again_from_its_beginning(here, kaggle):
    kaggle.script["PUT"] = iter([Trouble(503), Trouble(cut=True)])
    submit.main("vgg8")
    assert kaggle.submissions[0]["bytes"] == FILE.read_bytes()


@pytest.mark.parametrize("content", [b"{}", b"null", b"<html>", b'{"ref": "abc"}', b"[]"])
def test_an_answer_without_a_number_leaves_it_open_whether_it_arrived(here, kaggle, content):
    kaggle.script["CreateSubmission"] = iter([Trouble(content=content, happens=True)])
    refused("Whether it arrived is not known")
    assert [(answer["ref"], answer["status"]) for answer in recorded()] == [(None, "SENDING")]
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1
    assert [(answer["ref"], answer["status"]) for answer in recorded()] == [(1001, "COMPLETE")]


@pytest.mark.parametrize("reason", ["Evaluation raised an exception", None])
def test_an_error_of_kaggles_is_recorded_and_refused(here, kaggle, reason):
    kaggle.verdicts = iter([{"status": "PENDING"}, {"status": "ERROR", "errorDescription": reason}])
    refused("could not score submission 1001", reason or "it gives no reason")
    assert [(answer["status"], answer["error"]) for answer in recorded()] == [("ERROR", reason)]
    assert metrics() == {}


def test_an_error_of_kaggles_as_the_command_says_it(kaggle, project):
    kaggle.verdicts = iter([{"status": "ERROR", "errorDescription": "Evaluation raised an exception"}])
    done = run(kaggle, project, "vgg8")
    assert done.returncode == 1
    assert done.stderr == "error: Kaggle could not score submission 1001: Evaluation raised an exception\n"
    assert recorded()[0]["status"] == "ERROR"


@pytest.mark.parametrize(
    ("operation", "trouble", "said", "times"),
    [
        (LIST, Trouble(401, "Unauthenticated"), "HTTP 401", 1),
        (LIST, Trouble(403, "You must accept this competition's rules"), "and accept the competition's rules", 1),
        (LIST, Trouble(404), "data.slug", 1),
        ("StartSubmissionUpload", Trouble(403, "You must accept this competition's rules"), "/rules", 1),
        ("StartSubmissionUpload", Trouble(429, "", {"Retry-After": "7200"}), "run this again in 7200 s", 1),
        ("StartSubmissionUpload", Trouble(500), "HTTP 500", 6),
        ("CreateSubmission", Trouble(429, "", {"Retry-After": "7200"}), "run this again in 7200 s", 1),
    ],
    ids=str,
)
def test_what_kaggle_refuses_is_said_in_one_sentence_and_not_recorded(here, kaggle, operation, trouble, said, times):
    kaggle.script[operation] = ALL(trouble)
    refused(said, STANDS)
    assert recorded() == []
    assert len([each for each in kaggle.requests if each.startswith(operation)]) == times


def test_a_short_pause_before_the_submission_is_made_is_kept(here, kaggle, capsys):
    kaggle.script["CreateSubmission"] = iter([Trouble(429, "", {"Retry-After": "7"})])
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1
    assert here[0] == 7
    assert "Kaggle: HTTP 429; trying again in 7 s" in capsys.readouterr().err


# What breaks off.


@pytest.mark.parametrize(
    "trouble",
    [Trouble(cut=True, happens=True), Trouble(silent=True, happens=True), Trouble(502, happens=True)],
    ids=["cut", "silent", "502"],
)
def test_a_submission_whose_answer_was_lost_is_never_made_twice(here, kaggle, trouble):
    kaggle.script["CreateSubmission"] = iter([trouble])
    refused("Whether it arrived is not known: the same command looks before it sends")
    assert kaggle.requests.count("CreateSubmission") == 1
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1
    assert [(answer["ref"], answer["status"]) for answer in recorded()] == [(1001, "COMPLETE")]


def test_a_submission_that_was_cut_off_and_did_not_arrive_is_made_when_that_is_sure(here, kaggle, monkeypatch):
    kaggle.script["CreateSubmission"] = iter([Trouble(cut=True)])
    refused("Whether it arrived is not known")
    assert kaggle.submissions == []
    refused("without an answer, and Kaggle does not list them yet: run this again in 10 min", "FORCE=1")
    assert kaggle.submissions == []
    monkeypatch.setattr(submit, "SETTLED", 0)
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1
    assert [(answer["ref"], answer["status"]) for answer in recorded()] == [(1001, "COMPLETE")]


def test_a_submission_that_was_cut_off_is_made_at_once_by_force(here, kaggle, monkeypatch):
    kaggle.script["CreateSubmission"] = iter([Trouble(cut=True)])
    refused("Whether it arrived is not known")
    monkeypatch.setenv("FORCE", "1")
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1


def test_two_at_the_same_time_do_not_both_send(here, kaggle):
    with answers.alone():
        refused("another make submit is at work here")
    assert kaggle.requests == []
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1


def test_what_cannot_be_noted_is_not_sent(here, kaggle):
    answers.METRICS.mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        submit.main("vgg8")
    assert kaggle.submissions == []


def test_a_message_that_kaggle_cuts_or_changes_is_known_by_its_beginning(here, kaggle):
    kaggle.script["CreateSubmission"] = iter([Trouble(cut=True, happens=True)])
    refused("Whether it arrived is not known", message="long " * 200)
    kaggle.submissions[0]["description"] = kaggle.submissions[0]["description"][:100] + "\n"
    answers.PATH.unlink()
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1


def test_a_submission_is_found_behind_a_hundred_others(here, kaggle):
    submit.main("vgg8")
    answers.PATH.unlink()
    for number in range(130):
        kaggle.submissions.insert(0, {"ref": 5000 + number, "description": "by hand", "bytes": b"", **SCORED})
    submit.main("vgg8")
    assert len(kaggle.submissions) == 131
    assert recorded()[0]["ref"] == 1001


NONSENSE = [b"<html>Please log in</html>", b"null", b'{"submissions": [null]}', b'{"submissions": 5}', b"[1]",
            b'{"submissions": [{"ref": 1, "date": "yesterday"}]}', b'{"submissions": [{"ref": "x"}]}']  # fmt: skip


@pytest.mark.parametrize("content", NONSENSE)
def test_a_list_that_does_not_speak_like_kaggle_is_told_in_one_sentence(here, kaggle, content):
    kaggle.script[LIST] = ALL(Trouble(content=content))
    if content != NONSENSE[2]:  # which the client takes for an empty one
        refused("the list of submissions: ", "Kaggle")
    assert kaggle.submissions == []


@pytest.mark.parametrize("content", NONSENSE[:2])
def test_an_upload_that_does_not_speak_like_kaggle_is_told_in_one_sentence(here, kaggle, content):
    kaggle.script["StartSubmissionUpload"] = ALL(Trouble(content=content))
    refused(str(FILE), "Kaggle")
    assert kaggle.submissions == []


@pytest.mark.parametrize("content", [b"<html>", b"null", b'{"numAllowedNow": "two"}'])
def test_entries_that_are_no_number_are_unknown(here, kaggle, content):
    kaggle.script[LIMITS] = ALL(Trouble(content=content))
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1


@pytest.mark.parametrize("code", ["403", '"403"'])
def test_a_refusal_without_words_is_no_empty_list(here, kaggle, code):
    kaggle.script[LIST] = ALL(Trouble(content=f'{{"code": {code}}}'.encode()))
    refused("the list of submissions: HTTP 403:" if code == "403" else "the list of submissions: ")
    assert kaggle.submissions == []


@pytest.mark.parametrize("score", ["NaN", "inf", "", "0,71", None])
def test_a_score_that_is_none_is_unknown(here, kaggle, capsys, score):
    kaggle.verdicts = itertools.repeat({"status": "COMPLETE", "publicScore": score, "privateScore": score})
    submit.main("vgg8")
    assert "Kaggle   public unknown, private unknown" in capsys.readouterr().out
    assert recorded()[0]["private_score"] is None
    leaderboard.main()


@pytest.mark.parametrize("operation", ["StartSubmissionUpload", "CreateSubmission"])
def test_what_kaggle_says_is_shown_without_secrets_and_control_characters(here, kaggle, operation):
    words = f"bad token {TOKEN} at http://storage.local/x?{SIGNATURE}\x1b[31m\n red"
    kaggle.script[operation] = ALL(Trouble(403, words))
    said = refused("bad token (secret) at (address)", "red")
    assert "\x1b" not in said


def test_kaggles_reason_is_noted_without_secrets(here, kaggle):
    kaggle.verdicts = iter([{"status": "ERROR", "errorDescription": f"see http://storage.local/x?{SIGNATURE}"}])
    refused("see (address)")
    assert SIGNATURE not in answers.PATH.read_text()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "You must accept this competition's rules before making a submission"),
        (403, "You must verify your phone before making a submission"),
        (400, "Submission not allowed: Your team has used its daily Submission allowance (2) today"),
        (400, "The description is too long"),
        (400, ""),
    ],
)
def test_what_the_user_can_mend_is_no_closed_competition(here, kaggle, status, words):
    kaggle.script["CreateSubmission"] = ALL(Trouble(status, words))
    refused(f"HTTP {status}", words)
    assert recorded() == []


@pytest.mark.parametrize("garbage", ["soon", "-5", "1.5", ""])
def test_a_pause_that_cannot_be_read_is_one_of_ours(here, kaggle, garbage):
    kaggle.script[LIST] = iter([Trouble(429, "", {"Retry-After": garbage})])
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1
    kaggle.script["StartSubmissionUpload"] = ALL(Trouble(429, "", {"Retry-After": garbage}))
    refused("asks for a pause: run this again in some minutes", name="ensemble")


@pytest.mark.parametrize(
    "words", [["NAME=vgg8; echo PWNED"], ["NAME=vgg8", "MESSAGE=$(shell touch pwned) cost $5 `id` \"q\" 's' \\ $(id)"]]
)
def test_make_hands_its_words_over_as_they_stand(project, words):
    (project / ".venv/bin").mkdir(parents=True)
    python = project / ".venv/bin/python"
    python.write_text('#!/bin/sh\nfor word in "$@"; do printf "<%s>" "$word"; done\n')
    python.chmod(0o755)
    for name in ("requirements.lock", ".venv/.installed"):
        (project / name).touch()
    environment = os.environ | {"NAME": "other", "MESSAGE": "other", "FORCE": "1"}
    done = subprocess.run(["make", "-s", "-f", ROOT / "Makefile", "submit", *words], cwd=project, env=environment,
                          capture_output=True, text=True, check=True)  # fmt: skip
    name, message = [*(word.partition("=")[2] for word in words), ""][:2]
    assert done.stdout == f"<-m><pipeline.kaggle.submit><{name}><{message}>"
    assert not (project / "pwned").exists()


@pytest.mark.parametrize(
    "trouble", [Trouble(503), Trouble(cut=True), Trouble(silent=True)], ids=["503", "cut", "silent"]
)
def test_what_was_sent_is_recorded_even_if_waiting_for_its_score_breaks_off(here, kaggle, trouble):
    kaggle.script[LIST] = itertools.chain([None], itertools.repeat(trouble))
    refused("the list of submissions", STANDS)
    assert [(answer["ref"], answer["status"]) for answer in recorded()] == [(1001, "PENDING")]
    kaggle.script.clear()
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1
    assert [(answer["ref"], answer["status"]) for answer in recorded()] == [(1001, "COMPLETE")]


def test_a_look_that_fails_once_is_no_trouble(here, kaggle):
    kaggle.script[LIST] = iter([None, Trouble(500), None])
    submit.main("vgg8")
    assert recorded()[0]["status"] == "COMPLETE"


def test_a_score_that_does_not_come_in_time_is_recorded_as_pending_and_waited_for_again(
    here, kaggle, monkeypatch, capsys
):
    monkeypatch.setattr(submit, "PATIENCE", -1)
    kaggle.verdicts = itertools.chain([{"status": "PENDING"}], itertools.repeat(SCORED))
    submit.main("vgg8")
    assert (recorded()[0]["status"], kaggle.requests) == ("PENDING", SENT)
    assert metrics() == {}
    assert "the same command waits on, and sends nothing" in capsys.readouterr().out
    submit.main("vgg8")
    assert (recorded()[0]["status"], len(kaggle.submissions)) == ("COMPLETE", 1)


def test_it_never_trains(kaggle, project):
    done = run(kaggle, project, "vgg8")
    assert done.returncode == 0
    assert {path.name for path in project.iterdir()} == {"home", "params.yaml", "submissions", "results"}
    assert "train" not in done.stdout + done.stderr


# The board.


def test_the_board_has_no_columns_for_kaggle_before_it_is_asked(here, kaggle, capsys):
    leaderboard.main()
    assert "Kaggle" not in capsys.readouterr().out
    assert kaggle.requests == []


def test_the_board_shows_kaggles_scores_and_how_far_they_differ(here, kaggle, capsys):
    submit.main("vgg8")
    capsys.readouterr()
    leaderboard.main()
    out = capsys.readouterr().out
    assert "Kaggle private" in out
    (line,) = [line for line in out.splitlines() if "vgg8 *" in line]
    assert line.split()[-4:] == ["71.25%", "+1.25", "70.02%", "+0.00"]
    (other,) = [line for line in out.splitlines() if "ensemble *" in line]
    assert other.split()[-1] == "1.0"  # minutes; nothing is known of it
    assert len({len(line.rstrip()) for line in out.splitlines() if set(line) == {"-", " "}}) == 1


def test_a_score_of_other_bytes_is_not_shown_for_these(here, kaggle, monkeypatch, capsys):
    submit.main("vgg8")
    table = pd.read_csv(submission.TABLE)
    table.loc[0, "sha256"] = "0" * 64
    table.to_csv(submission.TABLE, index=False)
    capsys.readouterr()
    leaderboard.main()
    assert "71.25%" not in capsys.readouterr().out
    monkeypatch.setenv("REFRESH", "1")
    assert set(metrics()) == {"vgg8"}
    leaderboard.main()
    assert metrics() == {}
    assert len(recorded()) == 1


def test_a_score_of_another_competition_is_none_of_this_one(here, kaggle):
    submit.main("vgg8")
    record = recorded()[0]
    answers.write([record, record | {"slug": "another", "private_score": 0.1}], SLUG)
    assert metrics()["vgg8"]["private_accuracy"] == record["private_score"]


def test_a_refresh_waits_for_no_submission_that_is_under_way(here, kaggle, monkeypatch):
    monkeypatch.setenv("REFRESH", "1")
    with answers.alone(), pytest.raises(UserError, match="another make submit is at work here"):
        leaderboard.main()
    assert not answers.PATH.exists()


def test_a_refresh_brings_what_kaggle_has_judged_since_and_what_others_sent(here, kaggle, monkeypatch, capsys):
    monkeypatch.setattr(submit, "PATIENCE", -1)
    kaggle.verdicts = iter([{"status": "PENDING"}])
    submit.main("vgg8")
    digest = submission.sha256(submission.FOLDER / "ensemble.csv")
    kaggle.submissions.insert(0, {"ref": 2002, "date": "2026-11-23T09:00:00.000Z", "fileName": "x.csv", **SCORED,
                                  "description": f"{answers.mark(digest)} sent elsewhere", "bytes": b""})  # fmt: skip
    kaggle.submissions.insert(0, {"ref": 3003, "date": "2026-11-23T09:00:00.000Z", "fileName": "x.csv", **SCORED,
                                  "description": "by hand", "bytes": b""})  # fmt: skip
    leaderboard.main()
    assert "PENDING" in capsys.readouterr().out
    kaggle.verdicts = itertools.repeat(SCORED)
    monkeypatch.setenv("REFRESH", "1")
    kaggle.requests.clear()
    leaderboard.main()
    assert kaggle.requests == [LOGIN, LIST]
    assert [(answer["ref"], answer["name"], answer["status"]) for answer in recorded()] == [
        (1001, "vgg8", "COMPLETE"), (2002, "ensemble", "COMPLETE")
    ]  # fmt: skip
    assert set(metrics()) == {"vgg8", "ensemble"}
    assert capsys.readouterr().out.count("71.25%") == 2


def test_a_refresh_that_kaggle_refuses_leaves_the_record_alone(kaggle, project):
    kaggle.script[LIST] = ALL(Trouble(401, "Unauthenticated"))
    done = run(kaggle, project, module="leaderboard", REFRESH="1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the list of submissions: HTTP 401")
    assert "or see the board without Kaggle's part: make leaderboard" in done.stderr
    assert not (project / answers.PATH).exists()


@pytest.mark.parametrize("worth", ["official", "unofficial", "drawn"])
def test_the_board_says_what_scores_on_other_data_are_worth(here, capsys, worth):
    table = pd.read_csv(submission.TABLE)
    table["data"] = worth
    table.to_csv(submission.TABLE, index=False)
    leaderboard.main()
    out = capsys.readouterr().out
    assert ("not Kaggle's own" in out) == (worth == "unofficial")
    assert ("drawn faces" in out) == (worth == "drawn")


def test_a_score_that_is_unknown_here_stands_beside_kaggles(here, kaggle, capsys):
    submit.main("vgg8")
    table = pd.read_csv(submission.TABLE).astype(object)
    unknown = [
        "public_accuracy",
        "private_accuracy",
        "private_low",
        "private_high",
        "private_no_duplicate",
        "rank_2013",
    ]
    table[unknown] = "unknown"
    table.to_csv(submission.TABLE, index=False)
    capsys.readouterr()
    leaderboard.main()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "vgg8 *" in line]
    assert line.split()[-2:] == ["71.25%", "70.02%"]


@pytest.fixture(autouse=True)
def _fresh(project):
    params.document.cache_clear()
