"""netplug graph: a picture of what is attached."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from netplug.cli.context import complete_network, get_context
from netplug.draw import Scene, render_svg, render_text
from netplug.errors import InputError
from netplug.picture import compute_scene


def graph(
    ctx: typer.Context,
    network: Annotated[
        str | None, typer.Argument(metavar="[NETWORK]", autocompletion=complete_network)
    ] = None,
    ascii_: Annotated[
        bool, typer.Option("--ascii", help="Without box-drawing characters.")
    ] = False,
    svg: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write an SVG picture to FILE; - is stdout."),
    ] = None,
) -> None:
    """Draw the host, its networks and the containers on them."""
    with get_context(ctx).engine() as engine:
        records = engine.records(network)
        with engine.host.kernel() as kernel:
            egress = kernel.host.default_interface()
            links = kernel.host.links()
    host = socket.gethostname()
    scene = compute_scene(host, records, uplink=egress.name if egress else "uplink", links=links)
    print_picture(scene, svg=svg, ascii_=ascii_, title=f"networks of host {host}")


def print_picture(scene: Scene, *, svg: str | None, ascii_: bool, title: str) -> None:
    """The picture where it was asked for: in a file, or as text that fits the terminal.

    Raises InputError where the file cannot be written.
    """
    if svg == "-":
        print(render_svg(scene, title=title), end="")
    elif svg is not None:
        try:
            Path(svg).write_text(render_svg(scene, title=title), encoding="utf-8")
        except OSError as error:
            raise InputError(f"{svg} cannot be written", error.strerror or "") from error
    else:
        plain = ascii_ or "utf" not in (sys.stdout.encoding or "").lower()
        width = shutil.get_terminal_size((80, 24)).columns
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print(
            render_text(scene, width=width, charset="ascii" if plain else "unicode", colour=colour)
        )
