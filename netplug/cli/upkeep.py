"""netplug check, repair, gc, status, ipam, install: is all well, and making it so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netplug import __version__, ipam, upkeep
from netplug.cli.context import DryRun, Json, complete_network, get_context, shown_container
from netplug.cli.output import print_done, print_json, print_table, say, warn
from netplug.cli.selection import matches
from netplug.cni.cache import remove_cached
from netplug.cni.versions import SUPPORTED
from netplug.engine import Engine
from netplug.errors import (
    CheckFailed,
    Conflict,
    NetplugError,
    NotFound,
    RequestError,
    Unavailable,
    collect,
)
from netplug.networks import parse_conflist_network

ipam_app = typer.Typer(help="Leased addresses.", no_args_is_help=True)
OptionalNetwork = Annotated[
    str | None, typer.Argument(metavar="[NETWORK]", autocompletion=complete_network)
]


def check(
    ctx: typer.Context,
    target: Annotated[str | None, typer.Argument(metavar="[TARGET]")] = None,
    network: OptionalNetwork = None,
    json: Json = False,
) -> None:
    """Compare attachments with the kernel. Exit status 6 when something differs."""
    with get_context(ctx).engine() as engine:
        records = [
            r
            for r in engine.records(network)
            if r.phase == "ready" and (target is None or matches(r, target))
        ]
        if target is not None and not records:
            raise NotFound(f"{target} is not attached", "no attachment fits", "see: netplug ps")
        found = [(record, engine.differences(record.attachment)) for record in records]
    if json:
        print_json(
            [
                {
                    "container": r.attachment.container,
                    "network": r.attachment.network,
                    "ifname": r.attachment.ifname,
                    "differences": [str(d) for d in differences],
                }
                for r, differences in found
            ]
        )
    else:
        for record, differences in found:
            a = record.attachment
            print(f"{shown_container(record)} on {a.network} ({a.ifname}): ", end="")
            print("as made" if not differences else "")
            for difference in differences:
                print(f"  {difference}")
    broken = sum(1 for _, differences in found if differences)
    if broken:
        raise CheckFailed(
            f"{broken} of {len(found)} attachments differ", "see above", "run: netplug repair"
        )


def repair(
    ctx: typer.Context,
    network: OptionalNetwork = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Put back what the kernel lost: flushed rules, deleted routes, detached ports."""
    failed: list[NetplugError] = []
    with get_context(ctx).engine() as engine:
        done = [engine.repair(record, dry_run=dry_run) for record in engine.records(network)]
    if json:
        print_json(
            [
                {
                    "container": r.record.attachment.container,
                    "network": r.record.attachment.network,
                    "found": [str(d) for d in r.found],
                    "failed": [str(e) for e in r.failed],
                }
                for r in done
            ]
        )
    for one in done:
        failed += one.failed
        for difference in one.found if not json else ():
            verb = "would put back" if dry_run else "put back"
            print(f"{shown_container(one.record)}: {verb} {difference}")
    if not json and not any(one.found for one in done):
        print("nothing was missing")
    collect("not everything could be put back", failed)


def gc(
    ctx: typer.Context,
    network: OptionalNetwork = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every attachment of the network, living ones too.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Remove what is provably dead: attachments whose namespace is gone, leftovers of crashes."""
    if all_ and network is None:
        raise RequestError("--all needs a NETWORK", "it removes living attachments", "name one")
    with get_context(ctx).engine() as engine:
        if network is None:
            removed = upkeep.gc_host(engine, dry_run=dry_run)
        else:
            removed = engine.gc(network, None, dry_run=dry_run)
            removed += _remove_all(engine, network, dry_run) if all_ else []
    for owner in () if dry_run else removed:
        if owner.count("/") == 2:
            remove_cached(*owner.split("/"))
    print_done("remove", removed, dry_run=dry_run, json=json)


def _remove_all(engine: Engine, network: str, dry_run: bool) -> list[str]:
    owners = []
    for record in engine.records(network):
        if not dry_run:
            engine.delete(record.attachment)
        owners.append(record.owner)
    return owners


def status(ctx: typer.Context, network: OptionalNetwork = None, json: Json = False) -> None:
    """Could a container be attached now, and is anything amiss? Exit status 8 when not."""
    context = get_context(ctx)
    conflists = [context.network(network)] if network else context.networks()
    rows: list[dict[str, object]] = []
    with context.engine() as engine:
        for conflist in conflists:
            row: dict[str, object] = {"network": conflist.name, "ready": True, "problem": ""}
            try:
                parsed, _ = parse_conflist_network(conflist)
                row["warnings"] = engine.status(parsed)
            except NetplugError as error:
                row |= {"ready": False, "problem": str(error), "hint": error.hint}
            rows.append(row)
        general = upkeep.warnings(engine)
    if json:
        print_json({"networks": rows, "warnings": general})
    else:
        print_table(
            ("NETWORK", "READY", "PROBLEM"),
            [(r["network"], "yes" if r["ready"] else "no", r["problem"]) for r in rows],
            "no networks",
        )
        for row in rows:
            for line in row.get("warnings", []):  # type: ignore[attr-defined]
                warn(f"{row['network']}: {line}")
        for line in general:
            warn(line)
    failed = [str(r["network"]) for r in rows if not r["ready"]]
    if failed:
        raise Unavailable(f"not ready: {', '.join(failed)}", "see above", "")


@ipam_app.command("ls")
def ipam_ls(ctx: typer.Context, network: OptionalNetwork = None, json: Json = False) -> None:
    """List leased addresses and their owners."""
    with get_context(ctx).engine() as engine:
        held = ipam.leases(engine.state.connection, host=engine.host.id, network=network)
    if json:
        print_json(
            [
                {
                    "address": str(r.address),
                    "network": r.network,
                    "owner": r.owner,
                    "since": r.since,
                }
                for r in held
            ]
        )
        return
    print_table(
        ("ADDRESS", "NETWORK", "OWNER"),
        [(r.address, r.network, r.owner) for r in held],
        "no addresses are leased",
    )


@ipam_app.command("release")
def ipam_release(
    ctx: typer.Context,
    owner: Annotated[str, typer.Argument(help="NETWORK/CONTAINER/IFNAME, as ipam ls shows it.")],
    force: Annotated[bool, typer.Option("--force", help="Even though it is attached.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Free the addresses of an owner that is gone."""
    with get_context(ctx).engine() as engine:
        held = ipam.leases(engine.state.connection, host=engine.host.id, owner=owner)
        if not held:
            raise NotFound(f"{owner} holds no address", "", "see: netplug ipam ls")
        if engine.state.get(engine.host.id, owner) is not None and not force:
            raise Conflict(
                f"{owner} is attached",
                "its address may carry traffic",
                "run: netplug disconnect; or netplug gc if its container is gone",
            )
        if not dry_run:
            with engine.state.transaction() as db:
                ipam.release(db, host=engine.host.id, owner=owner)
        print_done("free", [str(r.address) for r in held], dry_run=dry_run, json=json)


def install(
    bin_dir: Annotated[Path, typer.Option(help="Folder of CNI plugins.")] = Path("/opt/cni/bin"),
    conf_dir: Annotated[
        Path | None,
        typer.Option(help="Also write a default network there, if it has none yet."),
    ] = None,
    dnsname: Annotated[
        bool,
        typer.Option(
            "--dnsname",
            help="Also as dnsname: podman 4 then gives names to every network that it creates.",
        ),
    ] = False,
    native: Annotated[bool, typer.Option("--native", help="Demand the launcher in C.")] = False,
    python: Annotated[bool, typer.Option("--python", help="Use the launcher in Python.")] = False,
    no_agent: Annotated[
        bool, typer.Option("--no-agent", help="Use no launcher: one process does every call.")
    ] = False,
    autostart: Annotated[
        bool,
        typer.Option("--autostart", help="A call that finds no agent starts one, as root."),
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Put the CNI plugin in place: netplug, netplug-ipam and a name for each driver.

    It is the launcher in C where a C compiler is there, else the one in Python.
    """
    from netplug.agent.build import Settings, make_launcher
    from netplug.install import install_network, install_plugin

    kinds = {"native": native, "python": python, "one-process": no_agent}
    chosen = [kind for kind, wanted in kinds.items() if wanted]
    if len(chosen) > 1:
        raise RequestError(
            "there is one plugin file",
            "--native, --python and --no-agent exclude each other",
            "give one of them, or none",
        )
    if no_agent and autostart:
        raise RequestError(
            "--no-agent and --autostart exclude each other", "one is for no agent", "give one"
        )
    launcher = make_launcher(Settings(autostart=autostart), chosen[0] if chosen else "auto")
    say(f"the plugin is: {launcher.kind}")
    written = install_plugin(bin_dir, launcher, dnsname=dnsname, dry_run=dry_run, warn=warn)
    if conf_dir is not None:
        network = install_network(conf_dir, dry_run=dry_run)
        written += [network] if network else []
        if not network:
            say(f"{conf_dir} holds a network already; it stays as it is")
    print_done("write", written, dry_run=dry_run, json=json)


def version(json: Json = False) -> None:
    """Print the versions of netplug and of the CNI spec that it speaks."""
    if json:
        print_json({"netplug": __version__, "cni": list(SUPPORTED)})
    else:
        print(f"netplug {__version__}\nCNI spec {', '.join(SUPPORTED)}")
