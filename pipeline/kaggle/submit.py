"""Send a submission to Kaggle, wait for its score, and write it down. It never trains.

Reads submissions/NAME.csv, submissions/scores.csv and params.yaml (data.slug). Writes submissions/kaggle.json and
results/kaggle.json.
"""

import itertools
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline import config
from pipeline.competition import PUBLIC, SPLIT_ROWS
from pipeline.data import provenance
from pipeline.errors import UserError
from pipeline.evaluation import submission
from pipeline.evaluation.submission import UNKNOWN, percent
from pipeline.kaggle import client, records
from pipeline.kaggle.client import Kaggle
from pipeline.kaggle.records import COMPLETE, ERROR, PENDING, SENDING, Record

TIME = "%Y-%m-%dT%H:%M:%SZ"
OTHERWISE = "keep the local score, which stands in submissions/scores.csv"
PATIENCE = 600  # seconds to wait for a score
PAUSES = (1, 2, 3, 5)  # seconds between two looks; the last one goes on
LISTED = 600  # seconds after which Kaggle's list surely holds what has arrived


def local_score(name: str) -> dict[str, Any]:
    """The line of submissions/scores.csv for `name`."""
    lines = {line["name"]: line for line in submission.scores()}
    if name not in lines:
        raise UserError(f"there is no submission {name!r}; {submission.TABLE} has {', '.join(lines)}")
    return lines[name]


def validate(name: str, line: dict[str, Any]) -> Path:
    """The path of a submission that has the competition's form and is the one that was scored."""
    path = submission.FOLDER / f"{name}.csv"
    if line["data"] in ("folders", provenance.OTHER_SPLIT):
        raise UserError(f"{path} is of pictures in folders, whose order is not that of Kaggle's test.csv; {OTHERWISE}")
    if line["data"] == "drawn":
        raise UserError(f"{path} is of drawn faces, not of the competition's; {OTHERWISE}")
    submission.read(path, sum(SPLIT_ROWS[PUBLIC:]))
    if submission.sha256(path) != line["sha256"]:
        raise UserError(f"{path} is not the file that {submission.TABLE} scored; make both again: dvc repro -f score")
    return path


def revision() -> str:
    """The git revision, with a + where files differ from it; "no git" outside a repository."""
    if not shutil.which("git"):
        return "no git"
    found = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False)
    return f"revision {found.stdout.strip()}" if found.stdout.strip() else "no git"


def until_tomorrow(now: datetime) -> str:
    """How long it takes until the next day of Kaggle, which counts in UTC."""
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    minutes = -(-int((midnight - now).total_seconds()) // 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def show(kaggle: Kaggle, path: Path, line: dict[str, Any], message: str) -> None:
    """Show what will be sent. Raises UserError where no entry is left today."""
    remaining = kaggle.remaining()
    print(
        f"{path}: {path.stat().st_size:,} bytes, SHA-256 {line['sha256']}\n"
        f"  to       {kaggle.page}\n"
        f"  message  {message}\n"
        f"  locally  {describe(line['public_accuracy'], line['private_accuracy'])}\n"
        f"  entries  {'unknown how many are' if remaining is None else remaining} left today",
        flush=True,
    )
    if remaining == 0:
        raise UserError(
            f"no entry is left today: run this again in {until_tomorrow(datetime.now(UTC))}; or {OTHERWISE}"
        )


def send(kaggle: Kaggle, path: Path, line: dict[str, Any], message: str, sent: list[Record]) -> Record:
    """Send a file, and return the record of it, which stands in `sent` and on the disk before.

    Raises NotAccepted where the competition takes none, and UserError.
    """
    record: Record = dict.fromkeys(records.KEYS) | {
        "slug": kaggle.slug, "name": line["name"], "date": datetime.now(UTC).strftime(TIME), "message": message,
        "sha256": line["sha256"], "status": SENDING,
    }  # fmt: skip
    sent.append(record)
    records.write(sent, kaggle.slug)  # what cannot be noted must not be sent
    try:
        record |= {"ref": kaggle.submit(path, message), "status": PENDING}
    except client.Unsure as trouble:
        raise UserError(f"{trouble}. Whether it arrived is not known: the same command looks before it sends") from None
    except UserError:
        sent.remove(record)
        raise
    finally:
        records.write(sent, kaggle.slug)  # before the wait: what breaks it off must not make the next run send again
    return record


def open_question(record: Record, now: datetime) -> None:
    """Raise UserError where the fate of what was sent is not known: it is too early for Kaggle not to list it."""
    age = (now - datetime.strptime(record["date"], TIME).replace(tzinfo=UTC)).total_seconds()
    if age < LISTED:
        raise UserError(
            f"these bytes were sent {max(age, 0):.0f} s ago without an answer, and Kaggle does not list them yet: run "
            f"this again in {(LISTED - age) / 60:.0f} min, or look at Kaggle's page and send them again with FORCE=1"
        )


def describe(public: object, private: object) -> str:
    """Two scores in words."""
    texts = (UNKNOWN if score is None else percent(score) for score in (public, private))
    return "public {}, private {}".format(*texts)


def wait(kaggle: Kaggle, sent: list[Record], record: Record) -> None:
    """Ask until Kaggle has judged a submission, and write it down."""
    started, shown = time.monotonic(), ""
    on_terminal = sys.stdout.isatty()
    for pause in itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])):
        records.update(sent, kaggle.submissions(everything=False), [], kaggle.slug)
        waited = time.monotonic() - started
        done = record["status"] in (COMPLETE, ERROR) or waited > PATIENCE
        if on_terminal or record["status"] != shown:
            end = "\r" if on_terminal and not done else "\n"
            print(f"submission {record['ref']}: {record['status']} after {waited:.0f} s", end=end, flush=True)
        shown = record["status"]
        if done:
            records.write(sent, kaggle.slug)
            return
        time.sleep(pause)


def conclude(record: Record, line: dict[str, Any]) -> None:
    """Print Kaggle's scores beside ours. Raises UserError where it could not score the file."""
    if record["status"] == ERROR:
        raise UserError(f"Kaggle could not score submission {record['ref']}: {record['error'] or 'it gives no reason'}")
    if record["status"] == COMPLETE:
        print(f"Kaggle   {describe(record['public_score'], record['private_score'])}")
        print(f"locally  {describe(line['public_accuracy'], line['private_accuracy'])}")
        print(f"It stands in {records.PATH}; make leaderboard shows it.")
    else:
        print("Kaggle is still at it: the same command waits on, and sends nothing.")


def known(kaggle: Kaggle, line: dict[str, Any], sent: list[Record], force: bool) -> Record | None:
    """The record of these bytes at Kaggle, after a look there; None where they must be sent.

    Raises UserError where they may be there, unlisted.
    """
    records.update(sent, kaggle.submissions(), [line], kaggle.slug)
    record = None if force else records.latest(sent, kaggle.slug, line["sha256"])
    if record and record["ref"] is None:
        open_question(record, datetime.now(UTC))
        record = None
    sent[:] = [each for each in sent if each["ref"] is not None or each["sha256"] != line["sha256"]]
    if record:
        print(f"Kaggle already has these bytes, as submission {record['ref']}: not sent again")
        records.write(sent, kaggle.slug)
    return record


def main(name: str, message: str = "", force: bool = False) -> None:
    """Run the command."""
    line, slug = local_score(name), config.load().data.slug
    path, text = validate(name, line), message or f"{name}: out of fold {percent(line['oof_accuracy'])}, {revision()}"
    with records.alone():
        sent = records.read()
        past = records.latest(sent, slug, line["sha256"])
        if past and past["status"] in (COMPLETE, ERROR) and not force:
            raise UserError(
                f"Kaggle already has these bytes of {path}: submission {past['ref']}, {past['status']} (see "
                f"{records.PATH}); send them again with FORCE=1"
            )
        with client.connect(slug, OTHERWISE) as kaggle:
            record = known(kaggle, line, sent, force)
            try:
                if record is None:
                    marked = f"{records.mark(line['sha256'])} {text}"
                    show(kaggle, path, line, marked)
                    record = send(kaggle, path, line, marked, sent)
            except client.NotAccepted as answer:
                print(
                    f"{slug} takes no submission ({answer}), which is usual for a contest that is long over. The local "
                    f"score stands: {describe(line['public_accuracy'], line['private_accuracy'])}"
                )
                return
            wait(kaggle, sent, record)
        conclude(record, line)
