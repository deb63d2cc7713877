"""netplug connect, disconnect, ps: containers and their attachments."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any

import typer

from netplug.cli.context import (
    Context,
    DryRun,
    Json,
    complete_network,
    complete_target,
    get_context,
    shown_container,
)
from netplug.cli.output import print_done, print_json, print_table, warn
from netplug.cli.ports import FORM, parse_publish, parse_rate
from netplug.cli.selection import matches
from netplug.cli.targets import NAMESPACES, Target, resolve_target
from netplug.cni.cache import CachedAttachment, remove_cached, write_cached
from netplug.cni.conflist import Conflist
from netplug.cni.network import parse_attachment
from netplug.cni.protocol import Request, parse_request
from netplug.cni.result import render_result
from netplug.cni.verbs import make_foreign
from netplug.config import with_firewall
from netplug.engine import Engine
from netplug.errors import ConfigError, Conflict, NetplugError, NotFound
from netplug.firewall.render import render
from netplug.model import Attachment
from netplug.networks import parse_conflist_network
from netplug.preview import Preview, preview
from netplug.resources import Resource, Shell
from netplug.resources.addresses import Addresses, Sysctl
from netplug.state import Record

TargetName = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="Namespace name, path, PID, podman:NAME, docker:NAME or containerd:[NS/]ID.",
        autocompletion=complete_target,
    ),
]
NetworkName = Annotated[str, typer.Argument(metavar="NETWORK", autocompletion=complete_network)]


def connect(
    ctx: typer.Context,
    target: TargetName,
    network: NetworkName,
    publish: Annotated[list[str] | None, typer.Option("--publish", "-p", help=FORM)] = None,
    ip: Annotated[list[str] | None, typer.Option(help="Address to lease, repeatable.")] = None,
    mac: Annotated[str | None, typer.Option(help="MAC of the container's interface.")] = None,
    ifname: Annotated[
        str | None, typer.Option(help="Interface name. Default: the first free ethN.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Container name, for ps and DNS.")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Further DNS name, repeatable.")] = None,
    ingress: Annotated[
        str | None, typer.Option(help="Limit of what it receives, bits/s: 10M.")
    ] = None,
    egress: Annotated[str | None, typer.Option(help="Limit of what it sends, bits/s.")] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Give a container an interface on a network."""
    context = get_context(ctx)
    place = resolve_target(context, target)
    conflist = context.network(network)
    with context.engine() as engine:
        _demand_unconnected(engine, place, network, ifname)
        capabilities = _capabilities(
            publish or [], ip or [], mac, alias or [], network, ingress, egress
        )
        request = _make_request(
            context,
            conflist,
            place,
            ifname=ifname or engine.free_ifname(place.path),
            name=name or place.name,
            capabilities=capabilities,
        )
        parsed, warnings = parse_conflist_network(conflist)
        parsed = with_firewall(parsed, context.environ.get("NETPLUG_FIREWALL"))
        for line in warnings:
            warn(line)
        attachment = parse_attachment(request, parsed, via="cli")
        if dry_run:
            _print_preview(preview(engine, parsed, attachment), place, json=json)
            return
        result = engine.add(parsed, attachment, make_foreign(request, parsed))
        rendered = render_result(result, request.version)
        _cache(conflist, attachment, capabilities, rendered)
    if json:
        print_json(rendered)
    else:
        addresses = ", ".join(str(a.address) for a in result.ips) or "no address"
        print(f"{place.name} is on {network} as {attachment.ifname}: {addresses}")


def _demand_unconnected(engine: Engine, place: Target, network: str, ifname: str | None) -> None:
    for record in engine.records(network):
        a = record.attachment
        if (
            a.container == place.container
            and ifname in (None, a.ifname)
            and record.phase == "ready"
        ):
            raise Conflict(
                f"{place.name} is on network {network} already",
                f"as {a.ifname}, since it was connected by {a.via}",
                f"run: netplug disconnect {place.name} {network}; or give another --ifname",
            )


def _capabilities(
    publish: list[str],
    ip: list[str],
    mac: str | None,
    alias: list[str],
    network: str,
    ingress: str | None,
    egress: str | None,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if publish:
        found["portMappings"] = [entry for text in publish for entry in parse_publish(text)]
    if ip:
        found["ips"] = ip
    if mac:
        found["mac"] = mac
    if alias:
        found["aliases"] = {network: alias}
    limits = {"ingressRate": ingress, "egressRate": egress}
    rates = {key: parse_rate(text) for key, text in limits.items() if text}
    if rates:
        bursts = {
            key.replace("Rate", "Burst"): max(rate // 100, 12_000) for key, rate in rates.items()
        }
        found["bandwidth"] = rates | bursts
    return found


def _make_request(
    context: Context,
    conflist: Conflist,
    place: Target,
    *,
    ifname: str,
    name: str,
    capabilities: dict[str, Any],
) -> Request:
    """The request that an engine would make; so `connect` is checked as every other ADD."""
    config = conflist.request_config(capability_args=capabilities)
    refused = sorted(set(capabilities) - set(config.get("runtimeConfig", {})))
    if refused:
        raise ConfigError(
            f"network {conflist.name} does not take {', '.join(refused)}",
            f"{conflist.path} does not declare that capability",
            f'add "capabilities": {{"{refused[0]}": true}} to its plugin',
        )
    environ = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": place.container,
        "CNI_NETNS": place.path,
        "CNI_IFNAME": ifname,
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAME={name}",
        "CNI_PATH": context.cni_path,
    }
    return parse_request(environ, lambda: jsonlib.dumps(config).encode())


def _cache(
    conflist: Conflist,
    attachment: Attachment,
    capabilities: dict[str, Any],
    result: dict[str, Any],
) -> None:
    """libcni's result cache, so that cnitool and engines can delete what we added."""
    try:
        write_cached(
            CachedAttachment(
                network=attachment.network,
                container=attachment.container,
                ifname=attachment.ifname,
                netns=attachment.sandbox,
                config=conflist.text,
                args=(("IgnoreUnknown", "1"), ("K8S_POD_NAME", attachment.name)),
                capability_args=capabilities,
                result=result,
            )
        )
    except NetplugError as error:
        warn(f"cnitool will not know of this attachment: {error}")


def _print_preview(found: Preview, place: Target, *, json: bool) -> None:
    """The commands one would type; only a comment where the thing is there already."""
    named = f"{NAMESPACES}/{place.name}" == place.path
    shell = Shell(place.name if named else place.path, render)
    steps = [
        (step.describe(), present, step.shell(shell))
        for step, present in zip(found.plan, found.present, strict=True)
    ]
    if json:
        print_json([{"what": w, "present": p, "commands": c} for w, p, c in steps])
        return
    for what, present, commands in steps:
        if commands:
            print(f"# {what}{': is there already' if present else ''}")
            for line in () if present else commands:
                print(line)


def disconnect(
    ctx: typer.Context,
    target: TargetName,
    network: NetworkName,
    ifname: Annotated[str | None, typer.Option(help="Only this interface.")] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Take a container off a network. Works when its namespace or the network's file is gone."""
    context = get_context(ctx)
    with context.engine() as engine:
        records = [
            record
            for record in engine.records(network)
            if matches(record, target) and ifname in (None, record.attachment.ifname)
        ]
        if not records:
            raise NotFound(
                f"{target} is not on network {network}",
                "no attachment fits",
                "see: netplug ps",
            )
        for record in records:
            a = record.attachment
            if dry_run:
                continue
            engine.delete(a)
            remove_cached(a.network, a.container, a.ifname)
    if json:
        owners = [record.owner for record in records]
        print_done("disconnect", owners, dry_run=dry_run, json=True)
        return
    for record in records:
        where = f"{network} ({record.attachment.ifname})"
        print(f"{shown_container(record)} {'would leave' if dry_run else 'left'} {where}")
        own = [step for step in reversed(record.plan.steps) if step.key is None]
        for step in (s for s in own if not _stays(s)) if dry_run else ():
            print(f"  remove {step.describe()}")


def _stays(step: Resource) -> bool:
    """Settings are never undone, and loopback stays up."""
    return isinstance(step, Sysctl) or (isinstance(step, Addresses) and not step.addresses)


def ps(
    ctx: typer.Context,
    network: Annotated[
        str | None, typer.Argument(metavar="[NETWORK]", autocompletion=complete_network)
    ] = None,
    json: Json = False,
) -> None:
    """List attachments: who is on which network, with addresses and published ports."""
    with get_context(ctx).engine() as engine:
        records = engine.records(network)
    if json:
        print_json(
            [
                {"attachment": r.attachment, "phase": r.phase, "since": r.since, "result": r.result}
                for r in records
            ]
        )
        return
    print_table(
        ("CONTAINER", "NETWORK", "IFNAME", "ADDRESSES", "PORTS", "VIA", "STATE"),
        [
            (
                shown_container(r),
                r.attachment.network,
                r.attachment.ifname,
                ", ".join(str(a.address) for a in r.result.ips) if r.result else "",
                _ports(r.attachment),
                r.attachment.via,
                r.phase,
            )
            for r in _without_names_beside(records)
        ],
        "nothing is attached",
    )


def _without_names_beside(records: list[Record]) -> list[Record]:
    """For people: an attachment of ours that `dnsname` gives names to is one attachment."""
    mains = {r.owner for r in records if r.attachment.via != "names"}
    beside = {f"{owner}/names" for owner in mains}
    return [record for record in records if record.owner not in beside]


def _ports(attachment: Attachment) -> str:
    """Mappings as `8080->80/tcp`, the first four."""
    words = []
    for port in attachment.ports[:4]:
        ip = f"[{port.host_ip}]" if port.host_ip and port.host_ip.version == 6 else port.host_ip
        words.append(
            f"{f'{ip}:' if ip else ''}{port.host_port}->{port.container_port}/{port.protocol}"
        )
    rest = len(attachment.ports) - 4
    return ", ".join(words) + (f" and {rest} more" if rest > 0 else "")
