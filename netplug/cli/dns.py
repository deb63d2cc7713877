"""netplug dns: the names of containers, and the way of a question through the name server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from netplug.cli.context import Json, get_context, shown_container
from netplug.cli.output import print_json, print_table
from netplug.cli.selection import matches
from netplug.dns.protocol import NAME, ask
from netplug.errors import NotFound, RequestError, Unavailable
from netplug.model import Dns
from netplug.state import Record

app = typer.Typer(
    help="Names of containers: who is called what, who knows it.", no_args_is_help=True
)
INSIDE = "127.0.0.11"
FOUND = "NOERROR"


@app.command()
def records(
    ctx: typer.Context,
    network: Annotated[str | None, typer.Argument(metavar="[NETWORK]")] = None,
    json: Json = False,
) -> None:
    """List containers with names: what they are called, their addresses and services."""
    context = get_context(ctx)
    with context.engine() as engine:
        found = [
            record
            for record in request(context.run_folder, "records", host=engine.host.id)["records"]
            if network in (None, record["network"])
        ]
        asked = {r.owner: ", ".join(servers_of(r)) for r in engine.records(network)}
    for record in found:
        record["servers"] = asked.get(record["owner"], "")
    if json:
        print_json(found)
        return
    print_table(
        ("NAME", "ALSO", "NETWORK", "ADDRESSES", "SERVICES", "ASKS"),
        [
            (
                record["name"],
                ", ".join(record["names"][1:]),
                record["network"],
                ", ".join(record["addresses"]),
                ", ".join(record["services"]),
                record["servers"],
            )
            for record in found
        ],
        "no container has names",
    )


@app.command()
def query(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name, or address for the name behind it.")],
    source: Annotated[
        str, typer.Option("--from", metavar="CONTAINER", help="Who asks, as netplug ps shows it.")
    ],
    kind: Annotated[str, typer.Option("--type", "-t", help="Type of record.")] = "A",
    json: Json = False,
) -> None:
    """Ask on a container's behalf and show the way of the question: who answers, how long.

    The search domains of the container are tried as its C library would (ndots 1). Exit
    status 4 where nothing is found.
    """
    context = get_context(ctx)
    with context.engine() as engine:
        asker = choose_asker(engine.records(), source)
        name, kind = reverse_of(name, kind)
        steps: list[dict[str, Any]] = []
        for candidate in candidates(name, asker.result.dns if asker.result else Dns()):
            steps.append(
                request(
                    context.run_folder,
                    "query",
                    host=engine.host.id,
                    owner=asker.owner,
                    name=candidate,
                    type=kind,
                )
            )
            if steps[-1]["answers"] or steps[-1]["rcode"] not in (FOUND, "NXDOMAIN"):
                break
    found = Found(shown_container(asker), servers_of(asker), tuple(steps))
    if json:
        print_json(found.document)
    else:
        found.show()
    if not steps[-1]["answers"]:
        hint = "see: netplug dns records"
        if steps[-1]["way"] == "upstream":
            hint = "see the upstream servers: netplug dns stats"
        raise NotFound(f"{name} has no {kind} for {found.asker}", steps[-1]["rcode"], hint)


@app.command()
def flush(ctx: typer.Context, json: Json = False) -> None:
    """Forget what upstream servers have answered."""
    done = request(get_context(ctx).run_folder, "flush")
    if json:
        print_json(done)
    else:
        print(f"{done['flushed']} answers are forgotten")


@app.command()
def stats(ctx: typer.Context, json: Json = False) -> None:
    """Show what was asked and how it was answered, and how the upstream servers do."""
    found = request(get_context(ctx).run_folder, "stats")
    if json:
        print_json(found)
        return
    rows = [(key, found[key]) for key in ("version", "pid", "uptime", "attachments")]
    rows += [(word, found["queries"].get(key, 0)) for key, word in QUERIES.items()]
    rows += [(word, found["forwarding"].get(key, 0)) for key, word in FORWARDING.items()]
    rows += [(word, found[key]) for key, word in HELD.items()]
    print_table(("", ""), rows, "")
    if found["upstream"]:
        print()
        print_table(
            ("UPSTREAM", "ASKED", "ANSWERED", "MEAN MS", "STATE"),
            [
                (
                    one["server"],
                    one["queries"],
                    one["replies"],
                    one["mean_ms"] if one["replies"] else "",
                    "healthy" if one["healthy"] else "rests: it was silent",
                )
                for one in found["upstream"]
            ],
            "",
        )


QUERIES = {
    "ready": "answered from ready replies",
    "own": "answered from names",
    "nxdomain": "no such name",
    "forwarded": "forwarded",
    "internal": "not forwarded (internal network)",
    "servfail": "failed (SERVFAIL)",
    "strangers": "refused: no member",
    "refused_kinds": "refused: of another kind",
    "limited": "dropped: over the rate limit",
    "malformed": "dropped: malformed",
    "refused_connections": "TCP connections refused",
    "send_errors": "replies that could not be sent",
}
FORWARDING = {
    "cache": "upstream: answered from the cache",
    "coalesced": "upstream: joined an equal question",
    "timeout": "upstream: nobody answered in time",
    "tcp": "upstream: asked again over TCP",
    "false_reply": "upstream: false replies dropped",
    "no_server": "upstream: no server is known",
    "overload": "upstream: too many at once",
}
HELD = {
    "in_flight": "questions under way",
    "cached": "answers in the cache",
    "ready": "ready replies",
    "connections": "TCP connections",
}


def request(folder: Path, command: str, **words: str) -> dict[str, Any]:
    """What the name server says. Raises Unavailable where none answers, RequestError for its
    refusal."""
    path = folder / NAME
    try:
        answer = ask(path, {"command": command, **words})
    except (FileNotFoundError, ConnectionRefusedError):
        raise Unavailable(
            "no name server runs",
            f"nothing answers on {path}",
            "run: netplug agent start; or netplug connect, which starts one for its networks",
        ) from None
    except (OSError, ValueError) as error:
        raise Unavailable(
            "the name server does not answer", f"{path}: {error}", "run: netplug agent stop, start"
        ) from error
    if "error" in answer:
        raise RequestError("the name server refuses", str(answer["error"]), "")
    return answer


def choose_asker(records: list[Record], source: str) -> Record:
    """An attachment of the container that has names; all of a container's see the same."""
    own = [record for record in records if matches(record, source)]
    named = [r for r in own if r.config.get("names") and r.phase == "ready"]
    if named:
        return named[0]
    if not own:
        raise NotFound(f"{source} is not attached", "no attachment fits", "see: netplug ps")
    networks = ", ".join(sorted({record.attachment.network for record in own}))
    raise NotFound(
        f"{source} asks no name server of ours",
        f"{networks}: no names there",
        "set names: true in the network, and connect the container anew",
    )


def reverse_of(name: str, kind: str) -> tuple[str, str]:
    """An address is asked for backwards."""
    from ipaddress import ip_address

    try:
        return f"{ip_address(name).reverse_pointer}.", "PTR"
    except ValueError:
        return name, kind.upper()


def candidates(name: str, dns: Dns) -> list[str]:
    """The names that a resolver asks for in turn (resolv.conf(5): search, ndots 1)."""
    if name.endswith("."):
        return [name.rstrip(".")]
    searched = [f"{name}.{domain}" for domain in dns.search]
    return [name, *searched] if "." in name else [*searched, name]


def servers_of(record: Record) -> tuple[str, ...]:
    return record.result.dns.nameservers if record.result else ()


@dataclass(frozen=True, slots=True)
class Found:
    """The way of one question. `steps` are the name server's answers, the last one counts."""

    asker: str
    servers: tuple[str, ...]
    steps: tuple[dict[str, Any], ...]

    @property
    def document(self) -> dict[str, Any]:
        return {"from": self.asker, "servers": self.servers, "steps": self.steps}

    def show(self) -> None:
        print(
            f"{self.asker} asks {', '.join(self.servers) or 'nobody'}"
            f" and sees {', '.join(self.steps[-1]['networks'])}"
        )
        print_table(
            ("NAME", "TYPE", "ANSWERED BY", "MS", "RESULT"),
            [
                (step["name"], step["type"], way_of(step), step["ms"], result_of(step))
                for step in self.steps
            ],
            "",
        )
        if self.steps[-1]["answers"]:
            print()
            print_table(
                ("NAME", "TTL", "TYPE", "DATA", "OF"),
                [
                    (a["name"], a["ttl"], a["type"], a["data"], a.get("owner", ""))
                    for a in self.steps[-1]["answers"]
                ],
                "",
            )


def way_of(step: dict[str, Any]) -> str:
    """Who answered, in words."""
    source = step["source"]
    if step["way"] == "names":
        return f"names of network {source}" if source in step["networks"] else f"zone {source}"
    if step["way"] == "upstream":
        return f"upstream {source}" if source else "no upstream server"
    return {"cache": "cache", "internal": "nobody: the network is internal"}[step["way"]]


def result_of(step: dict[str, Any]) -> str:
    if step["rcode"] == FOUND and not step["answers"]:
        return "NODATA"
    return str(step["rcode"])
