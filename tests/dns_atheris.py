"""`python tests/dns_atheris.py`: packets that atheris finds by the code that they reach."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["netplug.dns"]):
    from dns_fuzzing import Answering, demand_reply, render_reply

    from netplug.dns import wire
    from netplug.dns.upstream import strip_opt


def judge(data: bytes) -> None:
    """The first byte chooses what the rest is: a question over UDP or TCP, or a reply."""
    how, packet = data[:1], data[1:]
    if how < b"\x80":
        reply = answering.ask(packet, over_tcp=how < b"\x40")
        if reply:
            demand_reply(packet, reply)
        return
    try:
        told = strip_opt(packet, wire.parse_reply(packet, QUESTION))
    except wire.Malformed:
        return
    wire.parse_reply(told, QUESTION)


answering = Answering()
QUESTION = b"\3web\0\0\1\0\1"

if __name__ == "__main__":
    seeds = render_reply(b"\0\0\1\0\0\1" + b"\0" * 6 + QUESTION)
    judge(b"\xff" + seeds)
    atheris.Setup(sys.argv, judge)
    atheris.Fuzz()
