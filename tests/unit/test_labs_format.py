"""Labs as files: keys, variants, texts, solutions; errors that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from netplug.errors import ConfigError, InputError, NotFound
from netplug.labs.checks.registry import CHECKS
from netplug.labs.faults.catalogue import FAULTS
from netplug.labs.format import read_lab
from netplug.labs.injecting import pick_faults
from netplug.labs.library import find_lab, shipped
from netplug.labs.needs import FEATURES, PROGRAMS
from netplug.labs.solution import parse_solution, read_solution
from netplug.labs.template import write_template
from netplug.labs.texts import parse_text, read_text
from netplug.labs.vary import compute_values, seed_of, substitute

STEP = "steps: [{id: a, task: t, check: [{%s}]}]\n"


def write(folder: Path, text: str) -> Path:
    (folder / "lab.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
@pytest.mark.parametrize("seed", [0, 1, 99])
def test_shipped_labs_are_whole(path: Path, seed: int) -> None:
    lab = read_lab(path, seed=seed)
    assert lab.keys.minutes <= 20 and lab.steps and lab.keys.title
    assert set(lab.keys.needs) <= {*FEATURES, *PROGRAMS}
    text = read_text(lab)
    assert len(text.why) > 300, "a lab says why"
    assert list(text.steps) == [step.id for step in lab.steps]
    for step in lab.steps:
        assert text.steps[step.id].task and text.steps[step.id].happened and step.hint
    for name in ("lab.yaml", "text.md", "solution.sh"):
        assert "{{" not in lab.read(name), f"a variable of {name} has no value"
    read_solution(lab)


def test_the_course_is_in_order() -> None:
    assert [path.name[:2] for path in shipped()] == sorted(path.name[:2] for path in shipped())
    assert find_lab("2").name == "02-veth-cable" == find_lab("veth-cable").name
    with pytest.raises(NotFound, match="no lab veth-cabel") as raised:
        find_lab("veth-cabel")
    assert raised.value.hint == "did you mean veth-cable?"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title: x\nstepz: []\n", "unknown key stepz; did you mean steps"),
        ("title: x\ntitle: y\n", "written twice"),
        ("- 1\n", "keys are expected"),
        ("title: x\n" + STEP % "reech: {}", "unknown check 'reech'; did you mean reach"),
        ("title: x\n" + STEP % "reach: {form: a, to: b}", "unknown key form; did you mean from"),
        ("title: x\n" + STEP % "reach: {from: a}", "the key to is needed"),
        ("title: x\n" + STEP % "reach: {from: a, to: b, count: 0}", "count"),
        (
            "title: x\nfaults: {of: [{lo_dwn: {}}]}\n",
            "unknown fault 'lo_dwn'; did you mean lo_down",
        ),
        ("title: x\nfaults: {of: [{lo_down: {}}]}\n", "lo_down needs node"),
        ("title: x\nfaults: {pick: 2, of: [{lo_down: {node: a}}]}\n", "2 are to be picked of 1"),
        ("title: x\nvary: {a: ''}\n", "vary.a"),
        ("title: x\ntopology: {hosts: {a: 1}}\n", "hosts"),
        ("title: x\nminutes: 600\n", "minutes"),
        ("title: x\nsteps: [{id: a, task: t, check: []}]\n", "needs a check"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_lab(write(tmp_path, text))
    assert words in str(raised.value)


def test_a_folder_that_is_no_lab(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        read_lab(tmp_path)
    assert "netplug lab new" in raised.value.hint


def test_variants() -> None:
    vary = {"net": "20-250", "colour": "red green"}
    plain = compute_values(vary, 0, source="lab")
    assert plain == {"net": "20", "colour": "red"}
    nets = {compute_values(vary, seed, source="lab")["net"] for seed in range(1, 40)}
    assert len(nets) > 20 and all(20 <= int(net) <= 250 for net in nets)
    assert compute_values(vary, 7, source="a") == compute_values(vary, 7, source="b")
    assert substitute("10.{{ net }}.0.0 {{other}}", plain) == "10.20.0.0 {{other}}"
    assert seed_of("ana", "lab") == seed_of("ana", "lab") != seed_of("ben", "lab")


def test_faults_are_picked_by_the_seed() -> None:
    path = find_lab("broken-links")
    lab = read_lab(path)
    pairs = {tuple(map(str, pick_faults(lab, seed))) for seed in range(1, 60)}
    assert len(pairs) > 40
    assert pick_faults(lab, 5) == pick_faults(lab, 5)
    assert len(pick_faults(lab, 5)) == 2


@pytest.mark.parametrize("kind", FAULTS.values(), ids=lambda kind: kind.name)
def test_a_fault_is_described_and_has_an_inverse(kind) -> None:  # type: ignore[no-untyped-def]
    places = dict.fromkeys(kind.places, "x")
    fault = kind.at(places)
    for text in (fault.breaks, fault.mends, str(fault.evidence), fault.node):
        assert "{" + kind.places[0] + "}" not in text
    assert kind.symptom and kind.cause and kind.remedy
    ((word, _),) = fault.evidence.items()
    assert word in CHECKS
    with pytest.raises(ValueError, match="needs"):
        kind.at({})
    with pytest.raises(ValueError, match="has no 'elsewhere'"):
        kind.at({**places, "elsewhere": "y"})


def test_solutions_and_texts_are_split() -> None:
    sections = parse_solution("# words\n## a\none\n## b in red\ntwo\n\n## b\nthree\n", node="host")
    assert [(s.step, s.node, s.commands.strip()) for s in sections] == [
        ("a", "host", "one"),
        ("b", "red", "two"),
        ("b", "host", "three"),
    ]
    with pytest.raises(ConfigError, match="before any step"):
        parse_solution("ip link\n", node="host")
    text = parse_text("# T\nwhy\n## a: Do\ntask\n### What happened\nso\n## b: More\nbody\n")
    assert text.why == "# T\nwhy"
    assert (text.steps["a"].task, text.steps["a"].happened) == ("task", "so")
    assert (text.steps["b"].heading, text.steps["b"].happened) == ("More", "")


def test_the_template_is_a_lab(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_template(str(folder))
    lab = read_lab(folder, seed=3)
    assert read_text(lab).steps["cable"].happened
    assert "{{" not in lab.read("solution.sh")
