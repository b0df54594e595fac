"""Send a submission to Kaggle, wait for its score, and write down what Kaggle answered. It never trains.

Reads submissions/NAME.csv, submissions/scores.csv and params.yaml (data.slug). Writes submissions/kaggle.json and
results/kaggle.json. FORCE=1 in the environment sends a file again that was already sent.
"""

import io
import itertools
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.competition import PUBLIC, SPLIT_ROWS
from pipeline.data import download, provenance
from pipeline.errors import UserError
from pipeline.evaluation import submission
from pipeline.evaluation.submission import UNKNOWN, percent
from pipeline.kaggle import answers, client
from pipeline.kaggle.answers import COMPLETE, ERROR, PENDING, SENDING, Record
from pipeline.kaggle.client import Kaggle

TIME = "%Y-%m-%dT%H:%M:%SZ"
OTHERWISE = "keep the local score, which stands in submissions/scores.csv"
PATIENCE = 600  # seconds to wait for a score
PAUSES = (1, 2, 3, 5)  # seconds between two looks; the last one goes on
SETTLED = 600  # seconds after which Kaggle's list surely holds what has arrived


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


def send(kaggle: Kaggle, path: Path, line: dict[str, Any], message: str, records: list[Record]) -> Record:
    """Show what is sent, send it, and return the record of it, which stands in `records` and on the disk before.

    Raises NotAccepted where the competition takes none, and UserError.
    """
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
    record: Record = dict.fromkeys(answers.KEYS) | {
        "slug": kaggle.slug, "name": line["name"], "date": datetime.now(UTC).strftime(TIME), "message": message,
        "sha256": line["sha256"], "status": SENDING,
    }  # fmt: skip
    records.append(record)
    answers.write(records, kaggle.slug)  # what cannot be noted must not be sent
    try:
        record |= {"ref": kaggle.submit(path, message), "status": PENDING}
    except client.Unsure as trouble:
        raise UserError(f"{trouble}. Whether it arrived is not known: the same command looks before it sends") from None
    except UserError:
        records.remove(record)
        raise
    finally:
        answers.write(records, kaggle.slug)  # before the wait: what breaks it off must not make the next run send again
    return record


def open_question(record: Record, now: datetime) -> None:
    """Raise UserError where the fate of what was sent is not known: it is too early for Kaggle not to list it."""
    age = (now - datetime.strptime(record["date"], TIME).replace(tzinfo=UTC)).total_seconds()
    if age < SETTLED:
        raise UserError(
            f"these bytes were sent {max(age, 0):.0f} s ago without an answer, and Kaggle does not list them yet: run "
            f"this again in {(SETTLED - age) / 60:.0f} min, or look at Kaggle's page and send them again with FORCE=1"
        )


def describe(public: object, private: object) -> str:
    """Two scores in words."""
    texts = (UNKNOWN if score is None else percent(score) for score in (public, private))
    return "public {}, private {}".format(*texts)


def wait(kaggle: Kaggle, records: list[Record], record: Record) -> None:
    """Ask until Kaggle has judged a submission, and write down what it says."""
    started, shown = time.monotonic(), ""
    on_terminal = sys.stdout.isatty()
    for pause in itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])):
        answers.update(records, kaggle.submissions(everything=False), [], kaggle.slug)
        waited = time.monotonic() - started
        done = record["status"] in (COMPLETE, ERROR) or waited > PATIENCE
        if on_terminal or record["status"] != shown:
            end = "\r" if on_terminal and not done else "\n"
            print(f"submission {record['ref']}: {record['status']} after {waited:.0f} s", end=end, flush=True)
        shown = record["status"]
        if done:
            answers.write(records, kaggle.slug)
            return
        time.sleep(pause)


def conclude(record: Record, line: dict[str, Any]) -> None:
    """Say what Kaggle answered. Raises UserError where it could not score the file."""
    if record["status"] == ERROR:
        raise UserError(f"Kaggle could not score submission {record['ref']}: {record['error'] or 'it gives no reason'}")
    if record["status"] == COMPLETE:
        print(f"Kaggle   {describe(record['public_score'], record['private_score'])}")
        print(f"locally  {describe(line['public_accuracy'], line['private_accuracy'])}")
        print(f"It stands in {answers.PATH}; make leaderboard shows it.")
    else:
        print("Kaggle is still at it: the same command waits on, and sends nothing.")


def main(name: str = "ensemble", message: str = "") -> None:
    """Run the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a message may hold what this terminal cannot show
    line, slug, force = local_score(name), download.read_params().slug, os.environ.get("FORCE") == "1"
    path, text = validate(name, line), message or f"{name}: out of fold {percent(line['oof_accuracy'])}, {revision()}"
    with answers.alone():
        records = answers.read()
        past = answers.latest(records, slug, line["sha256"])
        if past and past["status"] in (COMPLETE, ERROR) and not force:
            raise UserError(
                f"Kaggle already has these bytes of {path}: submission {past['ref']}, {past['status']} (see "
                f"{answers.PATH}); send them again with FORCE=1"
            )
        with client.connect(slug, OTHERWISE) as kaggle:
            answers.update(records, kaggle.submissions(), [line], slug)
            record = None if force else answers.latest(records, slug, line["sha256"])
            if record and record["ref"] is None:
                open_question(record, datetime.now(UTC))
                record = None
            records[:] = [each for each in records if each["ref"] is not None or each["sha256"] != line["sha256"]]
            try:
                if record:
                    print(f"Kaggle already has these bytes, as submission {record['ref']}: not sent again")
                    answers.write(records, slug)
                else:
                    record = send(kaggle, path, line, f"{answers.mark(line['sha256'])} {text}", records)
            except client.NotAccepted as answer:
                print(
                    f"{slug} takes no submission ({answer}), which is usual for a contest that is long over. The local "
                    f"score stands: {describe(line['public_accuracy'], line['private_accuracy'])}"
                )
                return
            wait(kaggle, records, record)
        conclude(record, line)
