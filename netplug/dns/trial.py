"""One question on somebody's behalf, with the way that it took: for `netplug dns query`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dnslib import CLASS, QTYPE, RCODE, DNSRecord

from netplug.dns import wire
from netplug.dns.registry import Client
from netplug.dns.render import render_answer
from netplug.dns.server import NameServer


def try_query(
    server: NameServer, request: dict[str, Any], done: Callable[[dict[str, Any]], None]
) -> None:
    """As the attachment `host`, `owner` would be answered. Raises KeyError, ValueError."""
    client = server.registry.clients.get((str(request["host"]), str(request["owner"])))
    if client is None:
        raise ValueError(f"{request['owner']} has no names")
    kind = str(request.get("type", "A")).upper()
    if kind not in QTYPE.reverse:
        raise ValueError(f"unknown type {kind}")
    name = str(request["name"])
    question = wire.encode_name(name) + QTYPE.reverse[kind].to_bytes(2, "big") + b"\0\1"
    query = wire.Query(0, wire.RD, question, QTYPE.reverse[kind])
    began = time.perf_counter()

    def tell(message: bytes | None, way: str, source: str) -> None:
        answer: dict[str, Any] = {
            "name": name,
            "type": kind,
            "way": way,
            "source": source,
            "ms": round((time.perf_counter() - began) * 1e3, 3),
            "networks": [zone.network for zone in client.view.zones],
        }
        if message is None:
            message = wire.refuse(query, wire.SERVFAIL)
        reply = DNSRecord.parse(message)
        records = [
            {
                "name": str(record.rname).rstrip("."),
                "type": QTYPE.get(record.rtype),
                "class": CLASS.get(record.rclass),
                "ttl": record.ttl,
                "data": str(record.rdata),
                "owner": bearer_of(client, str(record.rdata)) if way == "names" else "",
            }
            for record in reply.rr
        ]
        done({**answer, "rcode": RCODE.get(reply.header.rcode), "answers": records})

    found = client.view.lookup(name.lower().rstrip("."), query.kind)
    if found is not None:
        message = render_answer(found, query, client.view.serial)[0]
        tell(message, "names", found.source or found.zone)
    elif client.view.internal:
        tell(wire.refuse(query, wire.NXDOMAIN), "internal", "no way out")
    else:
        upstreams = server.upstreams_of(client)
        server.forwarder.ask(
            upstreams,
            query,
            lambda message, who: tell(message, "cache" if who == "cache" else "upstream", who),
        )


def bearer_of(client: Client, data: str) -> str:
    """The attachment whose address, or whose name, a record tells."""
    told = data.rstrip(".").rpartition(" ")[2]  # an SRV record's target comes last
    for zone in client.view.zones:
        for owner, member in zone.members.items():
            if told == member.full_name or told in map(str, member.addresses):
                return owner
    return ""
