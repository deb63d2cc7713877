"""netplug overlay: networks that span several nodes, as the agent of this node sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from netplug.agent.joining import ask_agent
from netplug.cli.context import Json, complete_network
from netplug.cli.handover import agent_socket
from netplug.cli.output import print_json, print_table, say, warn
from netplug.errors import NotFound

app = typer.Typer(help="Networks over several nodes: state, peers, subnets.", no_args_is_help=True)
Socket = Annotated[
    Path | None, typer.Option("--socket", help="Where the agent listens.", show_default=False)
]
Name = Annotated[
    str, typer.Argument(metavar="NETWORK", autocompletion=complete_network, show_default=False)
]


def _ask(socket: Path | None, command: str, **more: Any) -> dict[str, Any]:
    return ask_agent(socket or Path(agent_socket()), f"overlay-{command}", **more)


@app.command()
def status(socket: Socket = None, json: Json = False) -> None:
    """Say for each network which subnet is this node's, and whether the kernel is as it should be.

    Exit status 8 where a subnet was lost or a network cannot be kept right.
    """
    found = _ask(socket, "status")
    if json:
        print_json(found)
    else:
        store = "connected" if found["connected"] else f"not connected ({found['reason']})"
        say(f"node {found['node']}, store {found['store']}: {store}")
        print_table(
            ("NETWORK", "SUBNETS", "VNI", "ADDRESS", "MTU", "PEERS", "ENTRIES", "STATE"),
            [_row(network) for network in found["networks"]],
            "no overlay networks; make one with: netplug network create NAME --driver overlay",
        )
        for network in found["networks"]:
            for word in _faults(network):
                warn(f"{network['network']}: {word}")
    if any(network["lost"] or network["problem"] for network in found["networks"]):
        raise typer.Exit(8)


def _row(network: dict[str, Any]) -> tuple[object, ...]:
    entries = network["entries"]
    quiet = f" ({network['quiet']} quiet)" if network["quiet"] else ""
    return (
        network["network"],
        ", ".join(network["subnets"]),
        network["vni"],
        f"{network['address']} ({network['underlay']})",
        network["mtu"],
        f"{network['peers']}{quiet}",
        f"{entries['actual']} of {entries['desired']}",
        "lost" if network["lost"] else "differs" if _faults(network) else "ok",
    )


def _faults(network: dict[str, Any]) -> list[str]:
    entries = network["entries"]
    words = [word for word in (network["lost"], network["problem"]) if word]
    words += [f"{item} is missing" for item in entries["missing"]]
    return words + [f"{item} is not wanted" for item in entries["unwanted"]]


@app.command()
def peers(
    network: Annotated[
        str | None,
        typer.Argument(metavar="NETWORK", autocompletion=complete_network, show_default=False),
    ] = None,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """List the other nodes, and compare what should lead to each with what the kernel holds."""
    networks = _ask(socket, "status", peers=True)["networks"]
    if network is not None:
        networks = [one for one in networks if one["network"] == network]
        if not networks:
            raise NotFound(
                f"this node takes no part in an overlay network {network!r}",
                "",
                "see: netplug overlay status",
            )
    if json:
        print_json({one["network"]: one["peer_list"] for one in networks})
        return
    rows = [
        (
            one["network"],
            peer["node"],
            f"{peer['state']} {_span(peer['seconds'])}",
            peer["address"],
            ", ".join(peer["subnets"]),
            peer["containers"],
            f"{peer['actual']} of {peer['desired']}",
        )
        for one in networks
        for peer in one["peer_list"]
    ]
    print_table(
        ("NETWORK", "NODE", "STATE", "ADDRESS", "SUBNETS", "CONTAINERS", "ENTRIES"),
        rows,
        "no peers",
    )
    for one in networks:
        for peer in one["peer_list"]:
            for item in peer["missing"]:
                warn(f"{one['network']}, {peer['node']}: {item} is missing")


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@app.command()
def adopt(network: Name, socket: Socket = None, json: Json = False) -> None:
    """Give this node a subnet again after its own was lost: the same one where it is free.

    Containers that have addresses of a subnet which is another node's now cannot be
    reached; connect them anew.
    """
    done = _ask(socket, "adopt", network=network)
    if json:
        print_json(done)
    else:
        what = "a new subnet" if done["moved"] else "its subnet again"
        print(f"{network}: this node has {what}, {', '.join(done['subnets'])}")


@app.command()
def leave(
    network: Name,
    node: Annotated[
        str | None,
        typer.Option(help="Another node, which is gone for good.", show_default=False),
    ] = None,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Give this node's subnet back, or that of a node which will not return.

    A node that was only silent finds its subnet lost when it returns.
    """
    done = _ask(socket, "leave", network=network, node=node or "")
    if json:
        print_json(done)
    else:
        print(f"{done['node']} has left {network}")
