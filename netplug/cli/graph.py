"""netplug graph: a picture of what is attached."""

from __future__ import annotations

import shutil
import socket
import sys
from typing import Annotated

import typer

from netplug.cli.context import complete_network, get_context
from netplug.picture import compute_scene


def graph(
    ctx: typer.Context,
    network: Annotated[
        str | None, typer.Argument(metavar="[NETWORK]", autocompletion=complete_network)
    ] = None,
    ascii_: Annotated[
        bool, typer.Option("--ascii", help="Without box-drawing characters.")
    ] = False,
) -> None:
    """Draw the host, its networks and the containers on them."""
    from netplug.draw import render_text

    with get_context(ctx).engine() as engine:
        records = engine.records(network)
        with engine.host.kernel() as kernel:
            egress = kernel.host.default_interface()
    scene = compute_scene(socket.gethostname(), records, uplink=egress.name if egress else "uplink")
    plain = ascii_ or "utf" not in (sys.stdout.encoding or "").lower()
    width = shutil.get_terminal_size((80, 24)).columns
    print(render_text(scene, width=width, charset="ascii" if plain else "unicode"))
