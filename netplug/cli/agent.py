"""netplug agent: the warm process behind the launchers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from netplug.agent import service
from netplug.agent.server import control
from netplug.cli.context import DryRun, Json, get_context
from netplug.cli.handover import agent_socket
from netplug.cli.output import print_done, print_json, print_table
from netplug.cni.files import write_file
from netplug.overlay.settings import read_settings

app = typer.Typer(help="Start, stop and watch the agent.", no_args_is_help=True)
LogFormat = Annotated[
    Literal["text", "json"], typer.Option(help="Lines of key=value, or one JSON object each.")
]
Socket = Annotated[Path, typer.Option("--socket", help="Where the agent listens.")]
DEFAULT = Path(agent_socket())


@app.command()
def start(
    ctx: typer.Context,
    socket: Socket = DEFAULT,
    log: Annotated[Path | None, typer.Option(help="File for its log. Default: none.")] = None,
    log_format: LogFormat = "text",
    config: Annotated[
        Path | None,
        typer.Option(help="Its settings. Default: /etc/netplug/agent.toml.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Start the agent in the background."""
    if config is not None:
        read_settings(config)  # said here: the agent has nobody to tell
    folder = get_context(ctx).state_folder
    _print_status(service.start(socket, folder, log, log_format, config), json=json)


@app.command()
def stop(socket: Socket = DEFAULT) -> None:
    """End the agent; calls that have begun are finished first. None is started by a call again
    until `netplug agent start`."""
    service.stop(socket)


@app.command()
def status(socket: Socket = DEFAULT, json: Json = False) -> None:
    """Say whether the agent runs, since when, and how many calls it served."""
    _print_status(service.demand_running(socket), json=json)


@app.command()
def reload(socket: Socket = DEFAULT) -> None:
    """Make the agent forget what it remembers of the host."""
    service.demand_running(socket)
    control(socket, "reload")


@app.command()
def units(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Option("--dir")] = Path("/etc/systemd/system"),
    socket: Socket = DEFAULT,
    log_format: LogFormat = "text",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write systemd units: the agent then starts with the first call."""
    files = service.render_units(socket, get_context(ctx).state_folder, log_format)
    for name, text in files.items():
        if not dry_run:
            write_file(str(directory), name, text.encode(), mode=0o644)
    print_done("write", [f"{directory}/{name}" for name in files], dry_run=dry_run, json=json)


def metrics(socket: Socket = DEFAULT) -> None:
    """Print the agent's counters, as Prometheus reads them."""
    service.demand_running(socket)
    print(control(socket, "metrics")["text"], end="")


def _print_status(found: dict[str, object], *, json: bool) -> None:
    if json:
        print_json(found)
    else:
        print_table(("", ""), list(found.items()), "")
