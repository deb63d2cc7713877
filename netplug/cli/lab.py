"""netplug lab: exercises. Each command finds the lab, works inside it, renders."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netplug.cli.options import Json
from netplug.cli.output import print_json, print_table, say, warn
from netplug.errors import CheckFailed, InputError, NotFound

if TYPE_CHECKING:  # labs are read late: some commands need no more than the process to end
    from pathlib import Path

    from netplug.labs.format import Lab
    from netplug.labs.session import Session

app = typer.Typer(
    help="""Exercises: build a network by hand, break it, see why a packet does not arrive.

    Students: list, start, show, shell, exec, check, hint, reset, stop.
    Teachers: new, verify, grade.""",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

LabOption = Annotated[
    str | None, typer.Option("--lab", help="The lab, where several run.", show_default=False)
]


def _complete_lab(incomplete: str) -> list[str]:
    from netplug.labs.library import shipped

    names = [folder.name.partition("-")[2] for folder in shipped()]
    return [name for name in names if name.startswith(incomplete)]


LabName = Annotated[
    str,
    typer.Argument(
        metavar="LAB",
        help="Name or number of a lab, its folder, or a topology file.",
        autocompletion=_complete_lab,
    ),
]
OptionalLab = Annotated[
    str | None, typer.Argument(metavar="[LAB]", help="The lab, where several run.")
]


@app.command("list")
def list_(json: Json = False) -> None:
    """List the labs, and say which of them cannot run here, and why."""
    from netplug.labs.format import read_lab
    from netplug.labs.library import shipped
    from netplug.labs.needs import missing_features
    from netplug.labs.session import sessions

    labs = [(folder.name.partition("-")[0], read_lab(folder)) for folder in shipped()]
    missing = missing_features({need for _, lab in labs for need in lab.keys.needs})
    running = {session.name for session in sessions()}
    rows = []
    for number, lab in labs:
        why = next((missing[need] for need in lab.keys.needs if need in missing), "")
        state = "running" if lab.name in running else f"unavailable: {why}" if why else ""
        rows.append((number.lstrip("0"), lab.name, lab.keys.minutes, lab.keys.title, state))
    if json:
        keys = ("number", "name", "minutes", "title", "state")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    print_table(("NO", "LAB", "MINUTES", "TITLE", "STATE"), rows, "no lab is installed")


@app.command()
def start(
    lab: LabName,
    seed: Annotated[int, typer.Option(min=0, help="Variant of the lab; 0 is the plain one.")] = 0,
    student: Annotated[str, typer.Option(help="Who works at it: chooses the variant.")] = "",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Run what the lab brings along without asking.")
    ] = False,
    json: Json = False,
) -> None:
    """Start a lab, or any topology file. It needs no root, and is gone when it stops."""
    from netplug.cli.progress import Bar
    from netplug.labs.format import lab_name, read_lab
    from netplug.labs.library import find_lab
    from netplug.labs.needs import demand_features
    from netplug.labs.running import start as start_lab
    from netplug.labs.vary import seed_of

    path = find_lab(lab)
    if student and not seed:
        seed = seed_of(student, lab_name(path))
    found = read_lab(path, seed=seed)
    demand_features(found)
    for line in found.warnings:
        warn(line)
    _ask_first(found, path, yes=yes)
    begin = time.monotonic()
    with Bar(f"starting {found.name}") as bar:
        session = start_lab(found, path, seed=seed, student=student, report=bar.advance)
    seconds = time.monotonic() - begin
    if json:
        nodes = [node.name for node in found.topology.nodes]
        print_json({"lab": session.name, "seed": seed, "nodes": nodes, "seconds": seconds})
        return
    from netplug.labs.render import render_start

    print(render_start(found, sys.stdout.isatty()))
    count = len(found.topology.nodes)
    say(f"{found.name} runs: {count} nodes in {seconds:.2f} s; end it with: netplug lab stop")


def _ask_first(lab: Lab, path: Path, *, yes: bool) -> None:
    """A lab that brings code, or wants root, says so before anything of it runs."""
    from netplug.labs.library import is_shipped
    from netplug.labs.solution import SETUP, read_solution

    if is_shipped(path) or yes or lab.folder is None:
        return
    setup = [section for section in read_solution(lab) if section.step == SETUP]
    wants = [f"Python, as you: {call} in {lab.folder}" for call in lab.runs_code]
    if lab.keys.sudo:
        wants.append(f"root: {lab.keys.sudo}")
        wants += [f"as root, in {s.node}:\n{s.commands.rstrip()}" for s in setup]
    if not wants:
        return
    print(f"{lab.name} would run:", *wants, sep="\n  ", file=sys.stderr)
    if not sys.stdin.isatty():
        raise InputError(
            f"{lab.name} was not started", "there is no terminal to ask on", "give --yes"
        )
    typer.confirm("Run it?", abort=True, err=True)


@app.command()
def show(
    lab: OptionalLab = None,
    svg: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write an SVG picture to FILE; - is stdout.")
    ] = None,
    ascii_: Annotated[
        bool, typer.Option("--ascii", help="Without box-drawing characters.")
    ] = False,
    json: Json = False,
) -> None:
    """Show a running lab: a picture, its steps, every node with its links and addresses."""
    from netplug.cli.graph import print_picture
    from netplug.labs.entering import run_inside
    from netplug.labs.library import lab_of
    from netplug.labs.picture import compute_lab_scene
    from netplug.labs.render import render_show
    from netplug.labs.session import find_session
    from netplug.labs.showing import read_nodes

    session = find_session(lab)
    found = lab_of(session)
    nodes = run_inside(session, lambda: read_nodes(found))
    progress = session.read_progress()
    if json:
        print_json({"lab": session.name, "seed": session.seed, "nodes": nodes})
        return
    scene = compute_lab_scene(found.topology, nodes)
    if scene.boxes or svg:
        print_picture(scene, svg=svg, ascii_=ascii_, title=f"lab {found.name}")
    if svg is None:
        print(render_show(found, progress, nodes, color=sys.stdout.isatty()))


@app.command()
def shell(
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="Default: where one works.")
    ] = None,
    lab: LabOption = None,
) -> None:
    """Open a shell in a node of the lab, from any terminal."""
    program = os.environ.get("SHELL", "/bin/sh")
    raise typer.Exit(_enter(lab, node, [program if os.access(program, os.X_OK) else "/bin/sh"]))


@app.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
def exec_(
    node: Annotated[str, typer.Argument(metavar="NODE")],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...")],
    lab: LabOption = None,
) -> None:
    """Run a command in a node of the lab; ends with its status."""
    raise typer.Exit(_enter(lab, node, command))


def _enter(lab: str | None, node: str | None, command: list[str]) -> int:
    from netplug.labs.entering import run_command, run_inside
    from netplug.labs.session import find_session

    session = find_session(lab)
    where = node or _usual_node(session)
    return run_inside(session, lambda: run_command(where, command, lab=session.name))


def _usual_node(session: Session) -> str:
    from netplug.labs.library import lab_of

    return lab_of(session).keys.node


@app.command()
def check(
    step: Annotated[
        str | None, typer.Argument(metavar="[STEP]", help="Only up to this one.")
    ] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option("--answer", "-a", metavar="ID=TEXT", help="Answer a question; repeatable."),
    ] = None,
    result: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a result, for the teacher.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Key that signs the result.")
    ] = None,
    lab: LabOption = None,
    json: Json = False,
) -> None:
    """Check every step done so far, and the next one. Status 6 until all is done."""
    from netplug.labs.checking import check_session
    from netplug.labs.grading import write_result
    from netplug.labs.library import lab_of
    from netplug.labs.render import render_results
    from netplug.labs.session import find_session

    session = find_session(lab)
    found = lab_of(session)
    answers = dict(_parse_answer(text) for text in answer or [])
    results, progress = check_session(session, found, upto=step or "", answers=answers)
    if result:
        write_result(result, session, found, results, key=key)
        say(f"wrote {result}")
    if json:
        print_json(
            [{"step": r.step.id, "status": r.status, "checks": list(r.verdicts)} for r in results]
        )
    else:
        print(render_results(found, results, progress, color=sys.stdout.isatty()))
    if any(not r.ok or r.status == "later" for r in results):
        raise typer.Exit(CheckFailed.exit_status)


def _parse_answer(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise InputError(f"{text!r} is no answer", "", "write it as ID=TEXT")
    return name, value


@app.command()
def hint(
    step: Annotated[str | None, typer.Argument(metavar="[STEP]")] = None,
    rung: Annotated[
        int | None,
        typer.Option(
            min=1, max=3, help="1 what the kernel shows, 2 the author's hint, 3 the solution."
        ),
    ] = None,
    lab: LabOption = None,
) -> None:
    """Get help for the step you are at: more of it each time you ask."""
    from netplug.labs.checking import hint_session
    from netplug.labs.library import lab_of
    from netplug.labs.render import render_hint
    from netplug.labs.session import find_session

    session = find_session(lab)
    found = lab_of(session)
    given = hint_session(session, found, step=step, rung=rung)
    print(render_hint(given, color=sys.stdout.isatty()))


@app.command()
def reset(
    step: Annotated[
        str | None,
        typer.Argument(metavar="[STEP]", help="The last step to be done; none: a fresh start."),
    ] = None,
    lab: LabOption = None,
) -> None:
    """Put the lab into its state after STEP, or at its start. Open shells stay usable."""
    from netplug.labs.library import lab_of
    from netplug.labs.resetting import reset_session
    from netplug.labs.session import find_session

    session = find_session(lab)
    found = lab_of(session)
    reset_session(session, found, step or "")
    print(f"{found.name} is as {'after ' + step if step else 'at its start'}")


@app.command()
def stop(
    lab: OptionalLab = None,
    all_: Annotated[bool, typer.Option("--all", help="Every lab that runs.")] = False,
) -> None:
    """End a lab: its processes, networks and files. Nothing is left."""
    from netplug.labs.session import end_session, find_session, sessions

    chosen = sessions() if all_ else [find_session(lab)]
    if any(session.inside for session in chosen):
        raise NotFound(
            "a lab cannot be stopped from inside",
            "this shell is part of it",
            "leave it first: exit",
        )
    for session in chosen:
        end_session(session)
        print(f"{session.name} is gone")


@app.command()
def export(
    lab: LabName,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is stdout.")
    ] = "-",
) -> None:
    """Write the topology of a lab as a containerlab file. `start` reads such files."""
    from netplug.fixtures import export_containerlab
    from netplug.labs.format import read_lab
    from netplug.labs.library import find_lab

    text = export_containerlab(read_lab(find_lab(lab)).topology)
    if output == "-":
        print(text, end="")
        return
    try:
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"{output} cannot be written", error.strerror or "") from error
    say(f"wrote {output}")


@app.command()
def verify(
    labs: Annotated[
        list[str] | None, typer.Argument(metavar="[LAB]...", help="Default: every shipped lab.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which variant.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="How often.")] = 2,
    json: Json = False,
) -> None:
    """Prove a lab: it fails before, passes after, resets, and leaves nothing. Status 6 if not."""
    from netplug.errors import UnsupportedError
    from netplug.labs.library import find_lab, shipped
    from netplug.labs.verifying import verify as prove

    proofs = []
    paths = [find_lab(name) for name in labs] if labs else shipped()
    for path in paths:
        try:
            proofs.append(prove(path, seed=seed, rounds=rounds, say=say))
        except UnsupportedError as error:
            if labs:
                raise
            say(f"left out: {error}")
            continue
        if not json:
            found = proofs[-1]
            print(f"{'ok' if not found.problems else 'no'}  {found.lab}: {found.shown[-1]}")
            for problem in found.problems:
                print(f"    {problem}")
    if json:
        print_json(proofs)
    if any(proof.problems for proof in proofs):
        raise typer.Exit(CheckFailed.exit_status)


@app.command()
def grade(
    files: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...")] = None,
    key: Annotated[str | None, typer.Option(metavar="FILE", help="Key of the results.")] = None,
    new_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Make a key, and do nothing else.")
    ] = None,
    csv: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the table there as CSV.")
    ] = None,
    json: Json = False,
) -> None:
    """Read results into one table. Status 6 where a signature is wrong."""
    from netplug.labs import grading

    if new_key:
        grading.new_key(new_key)
        say(f"wrote {new_key}; hand it to those whose results you will read")
        return
    if not files:
        raise InputError("no result is named", "", "netplug lab grade FILE... or --new-key FILE")
    grades = grading.grade(files, key=grading.read_key(key) if key else None)
    if csv:
        try:
            with open(csv, "w", encoding="utf-8") as file:
                file.write(grading.render_csv(grades))
        except OSError as error:
            raise InputError(f"{csv} cannot be written", error.strerror or "") from error
    if json:
        print_json(grades)
    elif not csv:
        rows = [
            (
                g.student or "-",
                g.lab,
                f"{g.passed}/{g.steps}",
                g.hints,
                g.minutes,
                g.signature,
                "" if g.variant else f"seed {g.seed} is not this student's",
            )
            for g in grades
        ]
        columns = ("STUDENT", "LAB", "STEPS", "HINTS", "MINUTES", "SIGNATURE", "NOTE")
        print_table(columns, rows, "no result")
    if any(g.signature == "wrong" for g in grades):
        raise typer.Exit(CheckFailed.exit_status)


@app.command()
def new(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the lab shall lie.")],
) -> None:
    """Write a lab to begin with: it passes `netplug lab verify` as it is."""
    from netplug.labs.template import write_template

    for path in write_template(folder):
        print(path)
    say(f"try it: netplug lab verify {folder}")


def get_command() -> Any:
    """The group alone, for a process that was asked for it."""
    return typer.main.get_command(app)
