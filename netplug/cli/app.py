"""The commands of `netplug`, one group a module."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import typer

from netplug import __version__
from netplug.cli import agent, attach, dns, graph, lab, network, overlay, upkeep
from netplug.cli.context import Context

EPILOG = """Exit status: 0 done; 1 failed; 2 wrong argument or configuration; 3 root is needed;
4 no such network, container or attachment; 5 in use, taken or exhausted; 6 the kernel
differs from the plan; 7 busy, try again; 8 cannot serve now.

Environment: NETCONFPATH (networks), CNI_PATH (foreign plugins), NETPLUG_STATE (state folder),
NETPLUG_FIREWALL (auto, nft, iptables, none), NETPLUG_RUN (folder of the agent's sockets)."""

app = typer.Typer(
    help="Networks for network namespaces: create them, attach containers, see and mend them.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"netplug {__version__}")
        raise typer.Exit


@app.callback()
def _settings(
    ctx: typer.Context,
    conf_dir: Annotated[
        str | None,
        typer.Option(
            help="Folder of network files, instead of NETCONFPATH or /etc/cni/net.d.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    ctx.obj = (ctx.obj or Context)(conf_dir)


app.add_typer(network.app, name="network")
app.add_typer(upkeep.ipam_app, name="ipam")
app.add_typer(agent.app, name="agent")
app.add_typer(dns.app, name="dns")
app.add_typer(overlay.app, name="overlay")
app.add_typer(lab.app, name="lab")
app.command()(agent.metrics)
app.command()(attach.connect)
app.command()(attach.disconnect)
app.command()(attach.ps)
app.command()(graph.graph)
app.command()(upkeep.check)
app.command()(upkeep.repair)
app.command()(upkeep.gc)
app.command()(upkeep.status)
app.command()(upkeep.install)
app.command()(upkeep.version)


@cache
def get_command() -> Any:
    """All of them as one, which takes a command line; made once in a process."""
    return typer.main.get_command(app)
