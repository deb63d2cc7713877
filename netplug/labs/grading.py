"""Results for the teacher: written by the student's check, signed, read into one table.

The signature is an HMAC (SHA-256) with a key that the teacher makes and hands out. It shows
that a file was not edited; who has the key can make a file of his own, so that for an exam
the key belongs on a machine where the teacher runs the last check.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from netplug.errors import Conflict, InputError
from netplug.labs.format import Lab
from netplug.labs.judging import StepResult
from netplug.labs.session import Session, write_file
from netplug.labs.vary import seed_of

SCHEMA = 1
SIGNATURE = "signature"
Signature = Literal["good", "wrong", "none"]


@dataclass(frozen=True, slots=True)
class Grade:
    """A row of the table. `variant`: was it the one that belongs to this student?"""

    file: str
    student: str
    lab: str
    seed: int
    passed: int
    steps: int
    hints: int
    solutions: int
    resets: int
    checks: int
    minutes: float
    signature: Signature
    variant: bool


def write_result(
    path: str, session: Session, lab: Lab, results: Sequence[StepResult], *, key: str | None
) -> None:
    """Raises InputError where the key cannot be read or the file not written."""
    progress = session.read_progress()
    body: dict[str, Any] = {
        "schema": SCHEMA,
        "lab": lab.name,
        "seed": session.seed,
        "student": session.student,
        "started": progress.started,
        "written": time.time(),
        "steps": [
            {
                "id": result.step.id,
                "passed": result.status == "done",
                "reached": progress.reached.get(result.step.id),
                "hints": progress.hints.get(result.step.id, 0),
            }
            for result in results
        ],
        "resets": progress.resets,
        "checks": progress.checks,
    }
    if key:
        body[SIGNATURE] = sign(body, read_key(key))
    try:
        write_file(Path(path).absolute(), json.dumps(body, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written", error.strerror or "") from error


def sign(body: dict[str, Any], key: bytes) -> str:
    """The HMAC of everything but the signature itself."""
    signed = {name: value for name, value in body.items() if name != SIGNATURE}
    text = json.dumps(signed, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def new_key(path: str) -> None:
    """A key in a new file that only its owner reads. Raises Conflict, InputError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} is there already", "a key is never overwritten") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written", error.strerror or "") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32) + "\n")


def read_key(path: str) -> bytes:
    """Raises InputError."""
    try:
        key = bytes.fromhex(Path(path).read_text().strip())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no key"
        hint = "make one with: netplug lab grade --new-key FILE"
        raise InputError(f"{path} cannot be read as a key", why, hint) from error
    if len(key) < 16:
        raise InputError(f"{path} is no key", "it is too short")
    return key


def grade(files: Sequence[str], *, key: bytes | None) -> list[Grade]:
    """A row for each file. Raises InputError for one that is no result."""
    return [_grade(file, key) for file in files]


def _grade(file: str, key: bytes | None) -> Grade:
    try:
        body = json.loads(Path(file).read_text())
        signature: Signature = "none"
        if body.get(SIGNATURE) and key:
            good = hmac.compare_digest(str(body[SIGNATURE]), sign(body, key))
            signature = "good" if good else "wrong"
        student, lab, seed = str(body["student"]), str(body["lab"]), int(body["seed"])
        steps = body["steps"]
        return Grade(
            file=file,
            student=student,
            lab=lab,
            seed=seed,
            passed=sum(bool(step["passed"]) for step in steps),
            steps=len(steps),
            hints=sum(int(step["hints"]) for step in steps),
            solutions=sum(int(step["hints"]) >= 3 for step in steps),
            resets=len(body["resets"]),
            checks=int(body["checks"]),
            minutes=round((float(body["written"]) - float(body["started"])) / 60, 1),
            signature=signature,
            variant=seed in (0, seed_of(student, lab)) if student else seed == 0,
        )
    except OSError as error:
        raise InputError(f"{file} cannot be read", error.strerror or "") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is no result", "netplug lab check --result writes one") from error


def render_csv(grades: Sequence[Grade]) -> str:
    """A header, and a line for each grade."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Grade.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in grades)
    return text.getvalue()
