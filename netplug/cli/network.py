"""netplug network: the files that are networks."""

from __future__ import annotations

import json as jsonlib
import os
from typing import Annotated, Any

import typer

from netplug.cli.context import Context, DryRun, Json, complete_network, get_context
from netplug.cli.output import print_done, print_json, print_table, say, warn
from netplug.cni.conflist import (
    Conflist,
    becomes_pod_network,
    conflist_file,
    remove_conflist,
    write_conflist,
)
from netplug.config import is_ours
from netplug.engine import Engine
from netplug.errors import ConfigError, Conflict, NetplugError, NotFound
from netplug.model import IPNetwork, overlaps
from netplug.networks import (
    ENGINE_FOLDER,
    POOLED,
    NewNetwork,
    choose_subnet,
    compute_conflist,
    parse_conflist_network,
    parse_subnets,
    private_folder,
    read_used_subnets,
    subnets_of,
    unique_local_subnet,
)
from netplug.plugins import OWN

app = typer.Typer(help="Create, list, inspect and remove networks.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of the network.", autocompletion=complete_network)]


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Letters, digits, '_', '.', '-'.")],
    driver: Annotated[
        str,
        typer.Option(help=f"Kind of network: {', '.join(OWN)}.", autocompletion=lambda: list(OWN)),
    ] = "bridge",
    subnet: Annotated[
        list[str] | None,
        typer.Option(
            help="CIDR, repeatable; one address of each."
            " Default of bridge, ptp and dummy: a free /24 of 10.89/16."
        ),
    ] = None,
    gateway: Annotated[
        list[str] | None,
        typer.Option(help="The gateway in a subnet (bridge: its address), repeatable."),
    ] = None,
    ip_range: Annotated[
        list[str] | None, typer.Option(help="START-END or CIDR to lease from, repeatable.")
    ] = None,
    ipv6: Annotated[bool, typer.Option("--ipv6", help="Add a random /64 of fd00::/8.")] = False,
    dhcp: Annotated[
        bool, typer.Option("--dhcp", help="Addresses come from a DHCP server on the network.")
    ] = False,
    parent: Annotated[
        str | None,
        typer.Option(help="Interface below macvlan, ipvlan, vlan. Default: the default route's."),
    ] = None,
    host_access: Annotated[
        bool, typer.Option("--host-access", help="macvlan: let host and containers meet.")
    ] = False,
    bridge: Annotated[str | None, typer.Option(help="Name of the bridge link.")] = None,
    mtu: Annotated[
        str | None, typer.Option(help="Bytes, or auto: as the way out. Default: auto.")
    ] = None,
    vlan: Annotated[int | None, typer.Option(help="VLAN of the containers' ports.")] = None,
    internal: Annotated[bool, typer.Option("--internal", help="No way out, no way in.")] = False,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="No traffic from or to other networks.")
    ] = False,
    port_isolation: Annotated[
        bool, typer.Option("--port-isolation", help="No traffic between its own containers.")
    ] = False,
    routed: Annotated[
        bool, typer.Option("--routed", help="Let hosts outside reach container addresses.")
    ] = False,
    masquerade: Annotated[bool, typer.Option(help="Leave with the host's address.")] = True,
    dns: Annotated[list[str] | None, typer.Option(help="Name server, repeatable.")] = None,
    names: Annotated[
        bool, typer.Option("--names/--no-names", help="Containers find each other by name.")
    ] = True,
    opt: Annotated[
        list[str] | None, typer.Option("--opt", "-o", help="Any key of the driver: KEY=VALUE.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Engines do not see it; for labs and scripts.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write a network's file; its bridge is made with the first container."""
    context = get_context(ctx)
    options: dict[str, Any] = _parse_options(opt or [])
    named = {
        "bridge": bridge,
        "master": parent,
        "vlanId" if driver == "vlan" else "vlan": vlan,
        "mtu": _parse_mtu(mtu),
    }
    options |= {key: value for key, value in named.items() if value is not None}
    flags = {
        "hostAccess": host_access,
        "internal": internal,
        "isolate": isolate,
        "portIsolation": port_isolation,
        "routed": routed,
    }
    options |= {key: True for key, on in flags.items() if on}
    subnets = parse_subnets(subnet or [])
    others = [c for c in context.networks() if c.name != name]
    if not subnets and driver in POOLED and not dhcp:
        subnets = (choose_subnet(read_used_subnets(others)),)
    if ipv6 and not any(s.version == 6 for s in subnets):
        subnets += (unique_local_subnet(),)
    conflist = compute_conflist(
        NewNetwork(
            name,
            driver,
            subnets,
            tuple(gateway or ()),
            tuple(ip_range or ()),
            ipv6,
            masquerade,
            dhcp,
            tuple(dns or ()),
            names,
            tuple(options.items()),
        )
    )
    _demand_new(context, name, subnets, others, conflist["plugins"][0].get("bridge"))
    folder = private_folder(context.state_folder) if private else context.folders[0]
    if dry_run:
        say(f"would write {folder}/{conflist_file(name)}:")
        print_json(conflist)
        return
    os.makedirs(folder, mode=0o700 if private else 0o755, exist_ok=True)
    if not private and folder == ENGINE_FOLDER and becomes_pod_network(folder, conflist_file(name)):
        warn(
            f"{folder}/{conflist_file(name)} is the first file by name:"
            " containerd will use it as its pod network (--private avoids that)"
        )
    written = write_conflist(folder, conflist)
    if json:
        print_json({"name": name, "file": written.path, "config": conflist})
    else:
        print(name)


def _parse_options(texts: list[str]) -> dict[str, Any]:
    """KEY=VALUE pairs; true, false, numbers, [lists] and {objects} are read as such."""
    found: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ConfigError(f"option {text!r} is wrong", "it has no '='", "write -o KEY=VALUE")
        if value in ("true", "false"):
            found[key] = value == "true"
        elif value[:1] in ("[", "{"):
            try:
                found[key] = jsonlib.loads(value)
            except ValueError as error:
                raise ConfigError(
                    f"option {text!r} is wrong", f"no JSON: {error}", "quote it for the shell"
                ) from error
        else:
            found[key] = int(value) if value.lstrip("-").isdigit() else value
    return found


def _parse_mtu(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdigit() else text


def _demand_new(
    context: Context,
    name: str,
    subnets: tuple[IPNetwork, ...],
    others: list[Conflist],
    bridge: str | None,
) -> None:
    """The name is free, and no subnet overlaps another network's, unless they share a bridge."""
    for conflist in context.networks():
        if conflist.name == name:
            raise Conflict(
                f"network {name} exists already",
                f"its file is {conflist.path}",
                f"choose another name, or run: netplug network rm {name}",
            )
    for conflist in others:
        try:
            other = parse_conflist_network(conflist)[0]
        except NetplugError:
            continue
        for mine in subnets:
            for theirs in subnets_of(other):
                shared = getattr(other.options, "bridge", None) == bridge
                if overlaps(mine, theirs) and not (shared and mine == theirs):
                    raise Conflict(
                        f"subnet {mine} overlaps {theirs} of network {other.name}",
                        "one host cannot route both",
                        "choose another subnet, or share the bridge and the subnet",
                    )


@app.command("ls")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List networks, also those whose file is gone while containers are attached."""
    context = get_context(ctx)
    with context.engine() as engine:
        attached: dict[str, int] = {}
        for record in engine.records():
            name = record.attachment.network
            attached[name] = attached.get(name, 0) + 1
    rows = [_describe(conflist, attached.pop(conflist.name, 0)) for conflist in context.networks()]
    rows += [
        {"name": name, "driver": "", "subnets": [], "attached": count, "file": "file gone"}
        for name, count in sorted(attached.items())
    ]
    if json:
        print_json(rows)
        return
    print_table(
        ("NAME", "DRIVER", "SUBNETS", "ATTACHED", "FILE"),
        [(r["name"], r["driver"], ", ".join(r["subnets"]), r["attached"], r["file"]) for r in rows],
        "no networks; make one with: netplug network create NAME",
    )


def _describe(conflist: Conflist, attached: int) -> dict[str, Any]:
    try:
        network = parse_conflist_network(conflist)[0]
        driver, subnets = network.driver, [str(s) for s in subnets_of(network)]
    except NetplugError:
        driver, subnets = "+".join(str(p.get("type", "?")) for p in conflist.plugins), []
    return {
        "name": conflist.name,
        "driver": driver,
        "subnets": subnets,
        "attached": attached,
        "file": conflist.path,
    }


@app.command()
def inspect(ctx: typer.Context, name: Name) -> None:
    """Print a network's file, its attachments and what its address ranges hold, as JSON."""
    context = get_context(ctx)
    conflist = None
    try:
        conflist = context.network(name)
    except NotFound:
        pass
    with context.engine() as engine:
        records = engine.records(name)
        if conflist is None and not records:
            context.network(name)  # raises with the nearest name
        print_json(
            {
                "name": name,
                "file": conflist.path if conflist else None,
                "config": conflist.raw if conflist else records[0].config,
                "attachments": [
                    {"attachment": r.attachment, "phase": r.phase, "result": r.result}
                    for r in records
                ],
            }
        )


@app.command()
def rm(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(autocompletion=complete_network)],
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Remove networks that nobody uses."""
    context = get_context(ctx)
    removed = []
    with context.engine() as engine:
        for name in names:
            conflist = context.network(name)
            _demand_unused(engine, name)
            if not dry_run:
                remove_conflist(conflist)
            removed.append(name)
    print_done("remove", removed, dry_run=dry_run, json=json)


def _demand_unused(engine: Engine, name: str) -> None:
    users = [f"{r.attachment.name or r.attachment.container}" for r in engine.records(name)]
    if users:
        raise Conflict(
            f"network {name} is in use",
            f"attached: {', '.join(users[:5])}{', ...' if len(users) > 5 else ''}",
            f"run: netplug disconnect TARGET {name}, or remove the containers",
        )


@app.command()
def prune(
    ctx: typer.Context,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Remove all networks of netplug's own files that nobody uses."""
    context = get_context(ctx)
    removed = []
    with context.engine() as engine:
        for conflist in context.networks():
            own_file = os.path.basename(conflist.path) == conflist_file(conflist.name)
            ours = all(is_ours(str(p.get("type", ""))) for p in conflist.plugins)
            if not own_file or not ours or engine.records(conflist.name):
                continue
            if not dry_run:
                remove_conflist(conflist)
            removed.append(conflist.name)
    print_done("remove", removed, dry_run=dry_run, json=json)
