"""netplug lab: exercises. Each command finds the lab, works inside it, renders.

These are the students' commands; the teachers' are in `lab_teachers`.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netplug.cli import lab_teachers
from netplug.cli.lab_names import LabName, LabOption, OptionalLab
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


for _command in (lab_teachers.export, lab_teachers.verify, lab_teachers.grade, lab_teachers.new):
    app.command()(_command)


def get_command() -> Any:
    """The group alone, for a process that was asked for it."""
    return typer.main.get_command(app)
