"""Submission and board against a Kaggle on this machine, through the real client."""

import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import settings
from loopback import ALL, KEY, SIGNATURE, TOKEN, Server, Trouble, in_this_process

from pipeline.competition import SLUG
from pipeline.errors import UserError
from pipeline.evaluation import board, submission
from pipeline.kaggle import leaderboard, records, submit

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
    (tmp_path / "home").mkdir()
    return tmp_path


@pytest.fixture
def here(kaggle, project, monkeypatch):
    """The commands in this process, with pauses that are noted instead of waited for."""
    return in_this_process(kaggle, project / "home", monkeypatch)


def recorded() -> list[dict]:
    return json.loads(records.PATH.read_text()) if records.PATH.exists() else []


def states() -> list[tuple]:
    return [(record["ref"], record["status"]) for record in recorded()]


def metrics() -> dict:
    return json.loads(records.METRICS.read_text()) if records.METRICS.exists() else {}


def refused(*words: str, name: str = "vgg8", message: str = "", force: bool = False) -> str:
    with pytest.raises(UserError) as refusal:
        submit.main(name, message, force)
    for word in words:
        assert word in str(refusal.value)
    for secret in (TOKEN, KEY, SIGNATURE, "storage.local"):
        assert secret not in str(refusal.value)
    return str(refusal.value)


def run(kaggle: Server, project: Path, *words: str) -> subprocess.CompletedProcess:
    """Run a command as a user does; whatever happens, it shows no secret and no traceback."""
    environment = kaggle.environment(project / "home", PYTHONPATH=str(ROOT), KAGGLE_API_TOKEN=TOKEN)
    done = subprocess.run([sys.executable, "-m", "pipeline", *words], env=environment, text=True, capture_output=True)
    for secret in (TOKEN, KEY, SIGNATURE, "storage.local", "Traceback"):
        assert secret not in done.stdout + done.stderr
    return done


# The good way.


def test_a_submission_is_shown_sent_waited_for_and_recorded(kaggle, project):
    pending = {"status": "PENDING"}
    kaggle.verdicts = itertools.chain([pending] * 3, itertools.repeat(SCORED))
    done = run(kaggle, project, "submit", "vgg8", "--message", "the first one")
    assert done.returncode == 0, done.stderr
    assert kaggle.requests == [*SENDING, *[LIST] * 4]
    (sent,) = kaggle.submissions
    digest = submission.sha256(FILE)
    message = f"[{digest[:12]}] the first one"
    assert (sent["bytes"], sent["description"]) == (FILE.read_bytes(), message)
    (record,) = recorded()
    assert abs(pd.Timestamp.now(UTC) - pd.Timestamp(record.pop("date"))) < pd.Timedelta(minutes=2)
    assert record == {
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
    assert {path.name for path in project.iterdir()} == {"home", "params.yaml", "submissions", "results"}


def test_on_a_terminal_the_wait_is_one_line_that_changes(kaggle, project):
    kaggle.verdicts = itertools.chain([{"status": "PENDING"}] * 2, itertools.repeat(SCORED))
    master, slave = os.openpty()
    environment = kaggle.environment(project / "home", PYTHONPATH=str(ROOT), KAGGLE_API_TOKEN=TOKEN)
    done = subprocess.run([sys.executable, "-m", "pipeline", "submit", "vgg8"], env=environment,
                          stdout=slave, stderr=subprocess.STDOUT)  # fmt: skip
    os.close(slave)
    shown = os.read(master, 10**6).decode()
    os.close(master)
    assert done.returncode == 0, shown
    (line,) = [line for line in shown.split("\r\n") if "PENDING" in line]
    assert re.fullmatch(r"(submission 1001: PENDING after \d+ s\r){2}submission 1001: COMPLETE after \d+ s", line)


def test_whatever_goes_wrong_once_it_is_sent_with_a_message_that_tells_what_it_is(here, kaggle):
    trouble = [Trouble(429, "", {"Retry-After": "7"})], [Trouble(503), Trouble(cut=True)], [None, Trouble(500), None]
    kaggle.script = dict(zip(("CreateSubmission", "PUT", LIST), map(iter, trouble), strict=True))  # each once
    submit.main("ensemble")
    digest = submission.sha256(submission.FOLDER / "ensemble.csv")
    assert 7 in here
    assert kaggle.submissions[0]["bytes"] == (submission.FOLDER / "ensemble.csv").read_bytes()
    assert [record["name"] for record in recorded()] == ["ensemble"]
    assert kaggle.submissions[0]["description"] == f"[{digest[:12]}] ensemble: out of fold 65.43%, no git"


@pytest.mark.parametrize("trouble", [
    None, Trouble(404), Trouble(500), Trouble(content=b"<html>"), Trouble(content=b"null"),
    Trouble(content=b'{"numAllowedNow": "two"}'),
], ids=str)  # fmt: skip
def test_entries_that_kaggle_does_not_tell_are_unknown_and_no_hindrance(here, kaggle, capsys, trouble):
    kaggle.limits = {"numToday": 0, "numTotal": 0, "numAllowedNow": 0}  # as for an account's first entry
    kaggle.script[LIMITS] = ALL(trouble)
    submit.main("vgg8")
    assert "entries  unknown how many are left today" in capsys.readouterr().out
    assert len(kaggle.submissions) == 1


# What is not sent.


def spoil(change):
    FILE.write_bytes(change(FILE.read_bytes()))


RECORD = dict.fromkeys(records.KEYS) | {"date": "2026-11-22T08:00:00Z", "message": ""}


def of(data):
    pd.read_csv(submission.TABLE).assign(data=data).to_csv(submission.TABLE, index=False)


INVALID = {
    "drawn faces": (lambda: of("drawn"), "vgg8.csv is of drawn faces, not of the competition's"),
    "pictures in folders": (lambda: of("folders"), "vgg8.csv is of pictures in folders"),
    "a line too few": (lambda: spoil(lambda text: text[2:]), "has 7,177 lines"),
    "class 7": (lambda: spoil(lambda text: text[:-2] + b"7\n"), "line 7178: '7' is no class"),
    "other classes": (
        lambda: spoil(lambda text: text[::-1][1:] + b"\n"),
        "vgg8.csv is not the file that submissions/scores.csv scored; make both again: dvc repro -f score",
    ),
    "no file": (FILE.unlink, "vgg8.csv is missing"),
    "no scores": (submission.TABLE.unlink, "scores.csv is missing"),
    **{
        f"the record {content}": (lambda content=content: records.PATH.write_bytes(content), "kaggle.json is damaged")
        for content in (b'[{"ref": 1', b"\xff\xfe[", b"{}", b'[{"ref": 1}]', b"[1]")
    },
}


@pytest.mark.parametrize(("spoiling", "said"), INVALID.values(), ids=INVALID)
def test_what_is_not_fit_to_be_sent_is_refused_before_kaggle_is_asked_anything(here, kaggle, spoiling, said):
    spoiling()
    before = {path: path.read_bytes() for path in submission.FOLDER.iterdir()}
    refused(said)
    assert kaggle.requests == []
    assert {path: path.read_bytes() for path in submission.FOLDER.iterdir()} == before


@pytest.mark.parametrize("state", ["COMPLETE", "ERROR"])
def test_the_same_bytes_are_sent_again_only_by_force(here, kaggle, state):
    past = RECORD | {"ref": 40, "slug": SLUG, "name": "other", "sha256": submission.sha256(FILE), "status": state}
    elsewhere = past | {"slug": "another", "sha256": submission.sha256(submission.FOLDER / "ensemble.csv")}
    records.PATH.write_text(json.dumps([past, elsewhere]))
    refused("no submission 'vgg9'; submissions/scores.csv has vgg8, ensemble", name="vgg9")
    refused("already has these bytes", f"submission 40, {state} (see submissions/kaggle.json)", "with FORCE=1")
    assert (kaggle.requests, recorded()) == ([], [past, elsewhere])
    submit.main("ensemble")  # which only another competition has
    submit.main("vgg8", force=True)
    assert [record["name"] for record in recorded()] == ["other", "other", "ensemble", "vgg8"]
    assert list(metrics()) == ["ensemble", "vgg8"]
    assert len(kaggle.submissions) == 2


def test_bytes_that_another_checkout_sent_are_not_sent_again(here, kaggle, capsys):
    submit.main("vgg8", "from the other one " * 50)
    records.PATH.unlink()
    kaggle.submissions[0]["description"] = kaggle.submissions[0]["description"][:100] + "\n"  # as Kaggle may cut it
    for number in range(130):
        kaggle.submissions.insert(0, {"ref": 5000 + number, "description": "by hand", "bytes": b"", **SCORED})
    submit.main("vgg8")
    assert len(kaggle.submissions) == 131
    assert "already has these bytes, as submission 1001: not sent again" in capsys.readouterr().out
    (record,) = recorded()
    assert (record["name"], record["status"], record["private_score"]) == ("vgg8", "COMPLETE", 0.71245)
    assert record.keys() == records.KEYS.keys()


def test_where_no_entry_is_left_nothing_is_sent(here, kaggle):
    kaggle.limits = {"numToday": 2, "numTotal": 9, "numAllowedNow": 0}
    refused("no entry is left today: run this again in ", STANDS)
    assert kaggle.requests == [LOGIN, LIST, LIMITS]
    assert recorded() == []


@pytest.mark.parametrize(("now", "left"), [
    ("2026-11-23T18:30", "5 h 30 min"), ("2026-12-31T23:59:30", "0 h 01 min"), ("2026-01-01T00:00", "24 h 00 min")
])  # fmt: skip
def test_kaggles_day_ends_at_midnight_in_greenwich(now, left):
    assert submit.until_tomorrow(datetime.fromisoformat(now).replace(tzinfo=UTC)) == left


# What Kaggle refuses.

START, CREATE = "StartSubmissionUpload", "CreateSubmission"


@pytest.mark.parametrize(("operation", "trouble"), [
    (START, Trouble(404, "Not found")), (START, Trouble(400, "Submission not allowed: the deadline is over")),
    (CREATE, Trouble(400, "Submission not allowed")), (CREATE, Trouble(403, "Submissions are closed")),
    (CREATE, Trouble(404)),
], ids=str)  # fmt: skip
def test_a_competition_that_takes_no_submissions_is_a_normal_outcome(here, kaggle, capsys, operation, trouble):
    kaggle.script[operation] = ALL(trouble)
    submit.main("vgg8")  # status 0
    shown = capsys.readouterr().out
    assert re.search(rf"{SLUG} takes no submission \(HTTP {trouble.status}.*{trouble.words}", shown)
    assert "The local score stands: public 70.02%, private 70.00%" in shown
    assert (recorded(), kaggle.submissions) == ([], [])


UPLOAD = (
    f"{FILE}: the upload failed (Could not submit to competition): run this again"  # of which the client exits with 0
)
REFUSED = [  # where, what, words of the message, and how often it is asked
    (LIST, Trouble(401, "Unauthenticated"), "HTTP 401", 1), (LIST, Trouble(404), "data.slug", 1),
    (LIST, Trouble(403, "You must accept this competition's rules"), "and accept the competition's rules", 1),
    *((LIST, Trouble(content=text), "HTTP 403", 1) for text in (b'{"code": 403}', b'{"code": "403"}')),
    *((LIST, Trouble(content=text), "does not speak like Kaggle", 1) for text in (
        b"<html>Please log in</html>", b"null", b'{"submissions": 5}', b"[1]",
        b'{"submissions": [{"ref": 1, "date": "yesterday"}]}', b'{"submissions": [{"ref": "x"}]}')),
    (START, Trouble(500), "HTTP 500", 6), (START, Trouble(403, "You must accept the rules"), "/rules", 1),
    *(("PUT", Trouble(status), UPLOAD, 6 if status == 500 else 1) for status in (403, 404, 410, 500)),
    *((where, Trouble(429, "", {"Retry-After": "7200"}), "run this again in 7200 s", 1) for where in (START, CREATE)),
    # What the user can change is no closed competition.
    (CREATE, Trouble(403, "You must accept this competition's rules"), "/rules", 1),
    (CREATE, Trouble(403, "You must verify your phone"), "verify your phone", 1),
    (CREATE, Trouble(400, "Submission not allowed: daily allowance (2) used today"), "HTTP 400", 1),
    (CREATE, Trouble(400, "The description is too long"), "too long", 1), (CREATE, Trouble(400), "HTTP 400", 1),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "trouble", "words", "times"), REFUSED, ids=lambda each: str(each)[:60])
def test_what_kaggle_refuses_is_told_in_one_sentence_and_not_recorded(here, kaggle, operation, trouble, words, times):
    kaggle.script[operation] = ALL(trouble)
    refused(words, STANDS)
    assert (recorded(), kaggle.submissions) == ([], [])
    assert len([each for each in kaggle.requests if each.startswith(operation)]) == times


@pytest.mark.parametrize("reason", ["Evaluation raised an exception", f"see http://storage.local/x?{SIGNATURE}", None])
def test_an_error_of_kaggles_is_recorded_and_refused(here, kaggle, reason):
    kaggle.verdicts = iter([{"status": "PENDING"}, {"status": "ERROR", "errorDescription": reason}])
    refused("could not score submission 1001", (reason or "it gives no reason").split()[0])
    assert (states(), metrics()) == ([(1001, "ERROR")], {})
    assert SIGNATURE not in records.PATH.read_text()


@pytest.mark.parametrize("operation", [START, CREATE])
def test_what_kaggle_writes_is_shown_without_secrets_and_control_characters(here, kaggle, operation):
    words = f"bad token {TOKEN} at http://storage.local/x?{SIGNATURE}\x1b[31m\n red"
    kaggle.script[operation] = ALL(Trouble(403, words))
    assert "\x1b" not in refused("bad token (secret) at (address)", "red")


@pytest.mark.parametrize("garbage", ["soon", "-5", "1.5", ""])
def test_a_pause_that_cannot_be_read_is_one_of_ours(here, kaggle, garbage):
    kaggle.script[LIST] = iter([Trouble(429, "", {"Retry-After": garbage})])
    submit.main("vgg8")
    assert len(kaggle.submissions) == 1
    kaggle.script[START] = ALL(Trouble(429, "", {"Retry-After": garbage}))
    refused("asks for a pause: run this again in some minutes", name="ensemble")


# What breaks off.

LOST = [Trouble(cut=True), Trouble(silent=True), Trouble(502)]
LOST += [Trouble(content=content) for content in (b"", b"{}", b"null", b"<html>", b'{"ref": "abc"}', b"[]")]


@pytest.mark.parametrize("trouble", LOST, ids=str)
def test_a_submission_whose_answer_was_lost_is_never_made_twice(here, kaggle, trouble):
    kaggle.script[CREATE] = iter([replace(trouble, happens=True)])
    refused("Whether it arrived is not known: the same command looks before it sends")
    assert (kaggle.requests.count(CREATE), states()) == (1, [(None, "SENDING")])
    submit.main("vgg8")
    assert (len(kaggle.submissions), states()) == (1, [(1001, "COMPLETE")])


@pytest.mark.parametrize("force", [False, True])
def test_what_did_not_arrive_is_sent_when_that_is_sure_or_by_force(here, kaggle, monkeypatch, force):
    kaggle.script[CREATE] = iter([Trouble(cut=True)])
    refused("Whether it arrived is not known")
    refused("without an answer, and Kaggle does not list them yet: run this again in 10 min", "FORCE=1")
    assert kaggle.submissions == []
    if not force:
        monkeypatch.setattr(submit, "LISTED", 0)
    submit.main("vgg8", force=force)
    assert (len(kaggle.submissions), states()) == (1, [(1001, "COMPLETE")])


def test_two_at_the_same_time_do_not_both_send(here, kaggle):
    with records.alone():
        refused("another make submit is at work here")
        with pytest.raises(UserError, match="another make submit is at work here"):
            leaderboard.main(True)
    assert kaggle.requests == []


def test_what_cannot_be_noted_is_not_sent(here, kaggle):
    records.METRICS.mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        submit.main("vgg8")
    assert kaggle.submissions == []


@pytest.mark.parametrize("trouble", [Trouble(503), Trouble(cut=True), Trouble(silent=True)], ids=str)
def test_what_was_sent_is_recorded_even_if_waiting_for_its_score_breaks_off(here, kaggle, trouble):
    kaggle.script[LIST] = itertools.chain([None], itertools.repeat(trouble))
    refused("the list of submissions", STANDS)
    assert states() == [(1001, "PENDING")]
    kaggle.script.clear()
    submit.main("vgg8")
    assert (len(kaggle.submissions), states()) == (1, [(1001, "COMPLETE")])


def test_a_score_that_does_not_come_in_time_is_waited_for_again(here, kaggle, monkeypatch, capsys):
    monkeypatch.setattr(submit, "PATIENCE", -1)
    kaggle.verdicts = itertools.chain([{"status": "PENDING"}], itertools.repeat(SCORED))
    submit.main("vgg8")
    assert (states(), metrics(), kaggle.requests) == ([(1001, "PENDING")], {}, SENT)
    assert "the same command waits on, and sends nothing" in capsys.readouterr().out
    submit.main("vgg8")
    assert (len(kaggle.submissions), states()) == (1, [(1001, "COMPLETE")])


# The board.


def shown(capsys, name, refresh=False):
    """The line of a submission on the board, in words, and the whole board."""
    capsys.readouterr()
    leaderboard.main(refresh)
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if f"{name} *" in line]
    return line.split(), out


@pytest.mark.parametrize("score", ["NaN", "inf", "", "0,71", None])
def test_a_score_that_is_none_is_unknown(here, kaggle, capsys, score):
    kaggle.verdicts = itertools.repeat({"status": "COMPLETE", "publicScore": score, "privateScore": score})
    submit.main("vgg8")
    assert recorded()[0]["private_score"] is None
    assert shown(capsys, "vgg8")[0][-2:] == ["unknown", "unknown"]


def test_the_board_shows_kaggles_scores_and_how_far_they_differ(here, kaggle, capsys):
    assert "Kaggle private" not in shown(capsys, "vgg8")[1]
    assert kaggle.requests == []
    submit.main("vgg8")
    line, out = shown(capsys, "vgg8")
    assert line[-4:] == ["71.25%", "+1.25", "70.02%", "+0.00"]
    assert shown(capsys, "ensemble")[0][-1] == "1.0"  # minutes; nothing is known of it
    assert len({len(line.rstrip()) for line in out.splitlines() if set(line) == {"-", " "}}) == 1
    table = pd.read_csv(submission.TABLE).astype(object)
    table[[name for name in table if name.startswith(("public_", "private_", "rank_"))]] = "unknown"
    table.to_csv(submission.TABLE, index=False)
    assert shown(capsys, "vgg8")[0][-2:] == ["71.25%", "70.02%"]


def test_a_score_of_other_bytes_is_not_shown_for_these(here, kaggle, capsys):
    submit.main("vgg8")
    table = pd.read_csv(submission.TABLE)
    table.loc[0, "sha256"] = "0" * 64
    table.to_csv(submission.TABLE, index=False)
    assert "71.25%" not in shown(capsys, "vgg8")[1]
    assert set(metrics()) == {"vgg8"}
    leaderboard.main(True)
    assert (metrics(), len(recorded())) == ({}, 1)


def test_a_refresh_brings_what_kaggle_has_judged_since_and_what_others_sent(here, kaggle, monkeypatch, capsys):
    monkeypatch.setattr(submit, "PATIENCE", -1)
    kaggle.verdicts = iter([{"status": "PENDING"}])
    submit.main("vgg8")
    mark = records.mark(submission.sha256(submission.FOLDER / "ensemble.csv"))
    for ref, message in ((2002, f"{mark} sent elsewhere"), (3003, "by hand")):
        kaggle.submissions.insert(0, {"ref": ref, "description": message, "bytes": b"", **SCORED})
    assert "PENDING" in shown(capsys, "vgg8")[0]
    kaggle.verdicts = itertools.repeat(SCORED)
    kaggle.requests.clear()
    assert shown(capsys, "vgg8", True)[1].count("71.25%") == 2
    assert kaggle.requests == [LOGIN, LIST]
    assert states() == [(1001, "COMPLETE"), (2002, "COMPLETE")]
    assert set(metrics()) == {"vgg8", "ensemble"}


@pytest.mark.parametrize("kind", ["official", "unofficial", "drawn"])
def test_the_board_tells_what_data_the_scores_are_of(here, capsys, kind):
    of(kind)
    out = shown(capsys, "vgg8")[1]
    assert {name for name, note in board.NOTES.items() if note in out} == {kind} - {"official"}
