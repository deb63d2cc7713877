"""How a command line names a lab: one that is there to start, or one that runs."""

from __future__ import annotations

from typing import Annotated

import typer

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
