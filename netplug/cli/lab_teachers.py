"""netplug lab for teachers: write labs, prove them, grade results, hand topologies on."""

from __future__ import annotations

from typing import Annotated

import typer

from netplug.cli.lab_names import LabName
from netplug.cli.options import Json
from netplug.cli.output import print_json, print_table, say
from netplug.errors import CheckFailed, InputError


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


def new(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the lab shall lie.")],
) -> None:
    """Write a lab to begin with: it passes `netplug lab verify` as it is."""
    from netplug.labs.template import write_template

    for path in write_template(folder):
        print(path)
    say(f"try it: netplug lab verify {folder}")
