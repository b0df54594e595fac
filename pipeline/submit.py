"""Send a submission to Kaggle, wait for its score, and write down what Kaggle answered. It never trains.

Reads submissions/NAME.csv, submissions/scores.csv and params.yaml (data.slug). Writes submissions/kaggle.json and
results/kaggle.json. FORCE=1 in the environment sends a file again that was already sent.
"""

import itertools
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline import answers, command, download, kaggle_client, submission
from pipeline.answers import COMPLETE, ERROR, PENDING, Record
from pipeline.command import Refusal
from pipeline.competition import PUBLIC, SPLIT_ROWS
from pipeline.kaggle_client import Kaggle
from pipeline.submission import percent

OTHERWISE = "keep the local score, which stands in submissions/scores.csv"
PATIENCE = 600  # seconds to wait for a score
PAUSES = (1, 2, 3, 5)  # seconds between two looks; the last one goes on


def local_score(name: str) -> dict[str, Any]:
    """The line of submissions/scores.csv for `name`."""
    lines = {line["name"]: line for line in submission.scores()}
    if name not in lines:
        raise Refusal(f"there is no submission {name!r}; {submission.TABLE} has {', '.join(lines)}")
    return lines[name]


def validate(name: str, line: dict[str, Any]) -> Path:
    """The path of a submission that has the competition's form and is the one that was scored."""
    path = submission.FOLDER / f"{name}.csv"
    submission.read(path, sum(SPLIT_ROWS[PUBLIC:]))
    if submission.sha256(path) != line["sha256"]:
        raise Refusal(f"{path} is not the file that {submission.TABLE} scored; make both again: dvc repro -f score")
    return path


def revision() -> str:
    """The git revision, with a + where files differ from it; "no git" outside a repository."""
    if not shutil.which("git"):
        return "no git"
    found = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "no git"


def until_tomorrow(now: datetime) -> str:
    """How long it takes until the next day of Kaggle, which counts in UTC."""
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    minutes = -(-int((midnight - now).total_seconds()) // 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def send(kaggle: Kaggle, path: Path, line: dict[str, Any], message: str) -> Record:
    """Show what is sent, send it, and return the record of it. Raises NotAccepted where the competition takes none."""
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
        raise Refusal(f"no entry is left today: run this again in {until_tomorrow(datetime.now(UTC))}; or {OTHERWISE}")
    try:
        ref = kaggle.submit(path, message)
    except kaggle_client.Unsure as trouble:
        raise Refusal(f"{trouble}. Whether it arrived is not known: the same command looks before it sends") from None
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"ref": ref, "slug": kaggle.slug, "name": line["name"], "date": date, "message": message,
            "sha256": line["sha256"], "status": PENDING, "public_score": None, "private_score": None,
            "error": None}  # fmt: skip


def describe(public: object, private: object) -> str:
    """Two scores in words."""
    return f"public {percent(public)}, private {percent(private)}"


def wait(kaggle: Kaggle, records: list[Record], record: Record) -> None:
    """Ask until Kaggle has judged a submission, and write down what it says."""
    started, shown = time.monotonic(), ""
    on_terminal = sys.stdout.isatty()
    for pause in itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])):
        answers.update(records, kaggle.submissions(), [], kaggle.slug)
        waited = time.monotonic() - started
        done = record["status"] != PENDING or waited > PATIENCE
        if on_terminal or record["status"] != shown:
            end = "\r" if on_terminal and not done else "\n"
            print(f"submission {record['ref']}: {record['status']} after {waited:.0f} s", end=end, flush=True)
        shown = record["status"]
        if done:
            answers.write(records)
            return
        time.sleep(pause)


def conclude(record: Record, line: dict[str, Any]) -> None:
    """Say what Kaggle answered. Raises Refusal where it could not score the file."""
    if record["status"] == ERROR:
        raise Refusal(f"Kaggle could not score submission {record['ref']}: {record['error'] or 'it gives no reason'}")
    if record["status"] == COMPLETE:
        print(f"Kaggle   {describe(record['public_score'], record['private_score'])}")
        print(f"locally  {describe(line['public_accuracy'], line['private_accuracy'])}")
        print(f"It stands in {answers.PATH}; make leaderboard shows it.")
    else:
        print("Kaggle is still at it: the same command waits on, and sends nothing.")


def main(name: str = "ensemble", message: str = "") -> None:
    """Run the command."""
    line, slug, records = local_score(name), download.read_params().slug, answers.read()
    path, force = validate(name, line), os.environ.get("FORCE") == "1"
    past = answers.latest(records, slug, line["sha256"])
    if past and past["status"] != PENDING and not force:
        raise Refusal(
            f"Kaggle already has these bytes of {path}: submission {past['ref']}, {past['status']} (see "
            f"{answers.PATH}); send them again with FORCE=1"
        )
    text = message or f"{name}: out of fold {percent(line['oof_accuracy'])}, revision {revision()}"
    with kaggle_client.connect(slug, OTHERWISE) as kaggle:
        answers.update(records, kaggle.submissions(), [line], slug)
        record = None if force else answers.latest(records, slug, line["sha256"])
        try:
            if record:
                print(f"Kaggle already has these bytes, as submission {record['ref']}: not sent again")
            else:
                record = send(kaggle, path, line, f"{text} {answers.mark(line['sha256'])}")
                records.append(record)
        except kaggle_client.NotAccepted as answer:
            print(
                f"{slug} takes no submission ({answer}), which is usual for a contest that is long over. The local "
                f"score stands: {describe(line['public_accuracy'], line['private_accuracy'])}"
            )
            return
        answers.write(records)  # before the wait: what breaks it off must not make the next run send again
        wait(kaggle, records, record)
    conclude(record, line)


if __name__ == "__main__":
    command.run(main, "python -m pipeline.submit [NAME] [MESSAGE]")
