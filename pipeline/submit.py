"""Send a submission to Kaggle, wait for its score, and write down what Kaggle answered. It never trains.

Reads submissions/NAME.csv and submissions/scores.csv. Writes submissions/kaggle.json. FORCE=1 in the environment sends
a file again that was already sent.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from pipeline import command, kaggle_client, submission
from pipeline.command import Refusal
from pipeline.competition import PUBLIC, SLUG, SPLIT_ROWS
from pipeline.submission import percent

ANSWERS = submission.FOLDER / "kaggle.json"
OTHERWISE = "keep the local score, which stands in submissions/scores.csv"
PENDING = "PENDING"
PATIENCE = 600  # seconds to wait for a score
UPLOAD_FAILED = "Could not submit to competition"  # kaggle 2.2.4 answers so, as if nothing were wrong


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


def past_answers() -> list[dict[str, Any]]:
    """What submissions/kaggle.json holds: one record a submission that was sent."""
    try:
        answers: list[dict[str, Any]] = json.loads(ANSWERS.read_text())
        if not all({"ref", "sha256", "status"} <= answer.keys() for answer in answers) or not isinstance(answers, list):
            raise ValueError("it is no list of answers")
    except FileNotFoundError:
        return []
    except (ValueError, AttributeError, TypeError) as trouble:
        raise Refusal(f"{ANSWERS} cannot be read ({trouble}); mend or remove it") from None
    return answers


def write(answers: list[dict[str, Any]]) -> None:
    """Write submissions/kaggle.json."""
    ANSWERS.write_text(json.dumps(answers, indent=2) + "\n")


def send(api: Any, path: Path, message: str) -> int:
    """Upload a submission; return Kaggle's number for it."""
    with kaggle_client.explained(str(path), OTHERWISE):
        answer = api.competition_submit(str(path), message, SLUG, quiet=True)
    if not answer.ref or UPLOAD_FAILED in answer.message:
        raise Refusal(f"{path}: the upload failed ({answer.message or 'no answer'}): run this again; or {OTHERWISE}")
    return int(answer.ref)


def wait(api: Any, ref: int, pause: float = 5) -> dict[str, Any]:
    """Ask every `pause` seconds until submission `ref` is judged; return Kaggle's answer."""
    started = time.monotonic()
    while True:
        with kaggle_client.explained("the submission's score", OTHERWISE):
            found = [each for each in api.competition_submissions(SLUG) or [] if each and each.ref == ref]
        status = found[0].status.name if found else PENDING
        waited = time.monotonic() - started
        print(f"submission {ref}: {status} after {waited:.0f} s", flush=True)
        if status != PENDING or waited > PATIENCE:
            break
        time.sleep(pause)
    return {
        "status": status,
        "public_score": found[0].public_score if found else None,
        "private_score": found[0].private_score if found else None,
        "error": found[0].error_description if found else None,
    }


def open_answer(answers: list[dict[str, Any]], path: Path, digest: str, force: bool) -> dict[str, Any] | None:
    """The record of the same bytes if their score is still to come; None if they are to be sent.

    Raises Refusal where Kaggle has judged the same bytes and `force` is not set.
    """
    same = [answer for answer in answers if answer["sha256"] == digest]
    if same and same[-1]["status"] == PENDING and not force:
        return same[-1]
    if same and not force:
        raise Refusal(f"Kaggle already has these bytes of {path} (see {ANSWERS}); send them again with FORCE=1")
    return None


def main(name: str = "ensemble", message: str = "") -> None:
    """Run the command."""
    line = local_score(name)
    path, answers = validate(name, line), past_answers()
    record = open_answer(answers, path, line["sha256"], os.environ.get("FORCE") == "1")
    text = message or f"{name}: out of fold {percent(line['oof_accuracy'])}, revision {revision()}"
    api = kaggle_client.login(OTHERWISE)
    if record is None:
        print(f"{path} ({path.stat().st_size:,} bytes, locally {percent(line['private_accuracy'])}) to {SLUG}: {text}")
        record = {"ref": send(api, path, text), "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                  "name": name, "message": text, "sha256": line["sha256"], "status": PENDING}  # fmt: skip
        answers.append(record)
        write(answers)  # before the wait: what breaks it off must not make the next run send again
    record |= wait(api, record["ref"])
    write(answers)
    print(f"{record['status']}: public {record['public_score']}, private {record['private_score']}; see {ANSWERS}")
    if record["status"] == "ERROR":
        raise Refusal(f"Kaggle could not score {path}: {record['error']}")


if __name__ == "__main__":
    command.run(main, "python -m pipeline.submit [NAME] [MESSAGE]")
