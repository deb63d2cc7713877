"""Steps, regressions, results and grades, without a kernel."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import ClassVar

import pytest

from netplug.errors import Conflict, InputError, NotFound
from netplug.fixtures import parse_topology
from netplug.kernel import sandbox
from netplug.labs import grading
from netplug.labs.checks.asking import AskCheck, fold
from netplug.labs.checks.base import Check, Verdict
from netplug.labs.format import Lab, LabFile
from netplug.labs.judging import judge
from netplug.labs.probes import fits
from netplug.labs.render import render_results
from netplug.labs.session import Progress, Session
from netplug.labs.vary import seed_of
from netplug.labs.world import World

STATE: dict[str, bool] = {}


class Fake(Check):
    word: ClassVar[str] = "fake"
    name: str

    def expected(self) -> str:
        return f"{self.name} is so"

    def judge(self, world: World) -> Verdict:
        if self.name not in STATE:
            raise NotFound("nothing there", "", "make it")
        return self.answer(STATE[self.name], str(STATE[self.name]), "not so")


def make_lab() -> Lab:
    steps = [{"id": n, "task": f"do {n}", "check": [Fake(name=n)]} for n in ("one", "two", "three")]
    keys = LabFile.model_validate({"title": "t", "steps": steps})
    return Lab("fake", keys, parse_topology({}, name="fake"), folder=None, values={})


@pytest.fixture(autouse=True)
def _state() -> None:
    STATE.clear()


def statuses(lab: Lab, progress: Progress, upto: str = "") -> list[str]:
    with World() as world:
        return [result.status for result in judge(lab, world, progress, upto=upto)]


def test_steps_go_on_one_by_one() -> None:
    lab, progress = make_lab(), Progress()
    assert statuses(lab, progress) == ["now", "later", "later"]
    STATE["one"] = True
    assert statuses(lab, progress) == ["done", "now", "later"]
    STATE.update(two=True, three=True)
    assert statuses(lab, progress) == ["done", "done", "done"]
    assert statuses(lab, progress, upto="two") == ["done", "done"]


def test_what_breaks_again_is_a_regression_and_says_after_what() -> None:
    lab, progress = make_lab(), Progress()
    STATE.update(one=True)
    statuses(lab, progress)
    STATE.update(two=True)
    statuses(lab, progress)
    STATE.update(one=False)
    with World() as world:
        results = judge(lab, world, progress)
    assert [result.status for result in results] == ["regressed", "done", "now"]
    assert results[0].broken_by == "two"
    text = render_results(lab, results, progress, color=False)
    assert "this worked, and broke again after two" in text
    assert (
        "expected: one is so" in text and "found:    False" in text and "that is:  not so" in text
    )
    assert "found:    nothing there" in text and "that is:  make it" in text
    assert "\x1b[" not in text and "\x1b[" in render_results(lab, results, progress, color=True)


def test_questions() -> None:
    ask = AskCheck.model_validate({"id": "q", "question": "?", "right": {"text": ["Yes", "y"]}})
    assert not ask.judge(World()).ok
    assert ask.judge(World(answers={"q": " yes. "})).ok
    assert not ask.judge(World(answers={"q": "no"})).ok
    assert fold("A  b.") == "a b"


def test_frames_are_told_apart() -> None:
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    udp = bytearray(bytes(12) + b"\x08\x00" + bytes([0x45]) + bytes(27))
    udp[23] = 17
    udp[34:38] = (4789).to_bytes(2, "big") + (53).to_bytes(2, "big")
    assert fits(arp, "arp", None) and not fits(arp, "udp", None)
    assert fits(bytes(udp), "udp", 53) and not fits(bytes(udp), "udp", 80)
    assert not fits(bytes(udp), "fragment", None)
    udp[20] = 0x20
    assert fits(bytes(udp), "fragment", None)


def make_result(folder: Path, *, student: str, key: str | None, seed: int) -> str:
    lab = make_lab()
    session = Session(folder, lab.name, "x", seed, 1, 1, "boot", student=student)
    progress = Progress(hints={"one": 3, "two": 1}, resets=["one"], checks=4)
    STATE.update(one=True, two=False)
    with World() as world:
        results = judge(lab, world, progress)
    session.write_progress(progress)
    file = folder / f"{student}.json"
    grading.write_result(str(file), session, lab, results, key=key)
    return str(file)


def test_results_are_signed_and_graded(tmp_path: Path) -> None:
    key = str(tmp_path / "key")
    grading.new_key(key)
    assert os.stat(key).st_mode & 0o077 == 0
    with pytest.raises(Conflict):
        grading.new_key(key)
    ana = make_result(tmp_path, student="ana", key=key, seed=seed_of("ana", "fake"))
    ben = make_result(tmp_path, student="ben", key=key, seed=5)
    eve = make_result(tmp_path, student="eve", key=None, seed=seed_of("eve", "fake"))
    body = json.loads(Path(ben).read_text())
    body["steps"][1]["passed"] = True
    Path(ben).write_text(json.dumps(body))
    grades = grading.grade([ana, ben, eve], key=grading.read_key(key))
    assert [g.signature for g in grades] == ["good", "wrong", "none"]
    assert [g.variant for g in grades] == [True, False, True]
    first = grades[0]
    assert (first.student, first.passed, first.steps) == ("ana", 1, 3)
    assert (first.hints, first.solutions, first.resets) == (4, 1, 1)
    table = grading.render_csv(grades).splitlines()
    assert table[0].startswith("file,student,lab,seed,passed") and len(table) == 4


def test_what_is_no_result_or_no_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("{}")
    with pytest.raises(InputError, match="no result"):
        grading.grade([str(file)], key=None)
    with pytest.raises(InputError, match="cannot be read as a key"):
        grading.read_key(str(file))
    with pytest.raises(InputError, match="cannot be read"):
        grading.grade([str(tmp_path / "gone")], key=None)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
        ("kernel/unprivileged_userns_clone", "0", "Debian"),
        ("user/max_user_namespaces", "0", "RHEL"),
    ],
)
def test_distributions_that_forbid_user_namespaces_are_named(
    monkeypatch: pytest.MonkeyPatch, key: str, value: str, words: str
) -> None:
    found = {f"/proc/sys/{key}": value}
    monkeypatch.setattr(sandbox, "_read", found.get)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    error = sandbox._explain(PermissionError(1, "Operation not permitted"))
    assert words in error.why and error.exit_status == 3
    assert "sudo netplug lab start" in error.hint
