"""What a launcher and the agent say to each other over a stream socket. Framing alone: pure.

    launcher                                    agent
    header, payload, descriptors  ->
                                  <-  'N' reason      not mine: do the work in one process
                                  <-  'B'             ready to begin
    'G'                           ->                  go: from here the launcher never falls back
                                  <-  'R' answer      exit status, stdout, stderr

A launcher that gives up before 'G' closes, and the agent then does nothing. Whatever
else comes instead of 'B' (another byte, the end, silence for `ANSWER_MS`) is a reason
to fall back. After 'G' a launcher without a whole answer within `WORK_MS` reports CNI
error 11: the work may be done, half done or not done, and DEL or a retry finds out.

The request:

    header      magic "NPA1" (the version of this protocol), u32 bytes of payload
    payload     u8 flags; KEY=VALUE NUL for PROGRAM and every variable of a call; NUL; stdin
    descriptors one SCM_RIGHTS message with the header's first byte: the launcher's own
                network, mount and user namespace, then CNI_NETNS where it could be opened

The answer: 'R', u8 exit status, u32 bytes of stdout, u32 bytes of stderr, both texts.
The refusal: 'N', u16 bytes of reason, the reason. Numbers are little endian.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from netplug.errors import DecodeError

SOCKET = "/run/netplug/agent.sock"
MAGIC = b"NPA1"
PAYLOAD_LIMIT = 16 << 20  # bytes; also of stdout and stderr of an answer together
ANSWER_MS = 2_000  # from the end of stdin to the agent's first byte
WORK_MS = 120_000  # from 'G' to the end of the answer; above every lock's patience

BEGIN = b"B"
GO = b"G"

OWN_DESCRIPTORS = 3  # network, mount and user namespace of the launcher
HAS_SANDBOX = 1  # flag: the fourth descriptor is CNI_NETNS
SANDBOX_GONE = 2  # flag: CNI_NETNS names nothing

_HEADER = struct.Struct("<4sI")
_ANSWER = struct.Struct("<cBII")
_REFUSAL = struct.Struct("<cH")
HEADER_BYTES = _HEADER.size


@dataclass(frozen=True, slots=True)
class Call:
    """One plugin call as its launcher saw it. `environ` holds what `is_passed` names, no more."""

    program: str
    environ: dict[str, str]
    stdin: bytes
    has_sandbox: bool = False
    sandbox_gone: bool = False

    @property
    def descriptors(self) -> int:
        """How many descriptors came with it."""
        return OWN_DESCRIPTORS + self.has_sandbox


def is_passed(name: str) -> bool:
    """Whether a launcher passes this variable: the call itself, and W3C trace context."""
    return name.startswith("CNI_") or name in ("TRACEPARENT", "TRACESTATE", "BAGGAGE")


def parse_header(header: bytes) -> int:
    """Bytes of payload that follow. Raises DecodeError for another version, or too many."""
    magic, size = _HEADER.unpack(header)
    if magic != MAGIC:
        raise DecodeError("the launcher speaks another protocol", f"{magic!r}, not {MAGIC!r}")
    if size > PAYLOAD_LIMIT:
        raise DecodeError("the request is too large", f"{size} bytes, at most {PAYLOAD_LIMIT}")
    return int(size)


def parse_payload(payload: bytes) -> Call:
    """The call. Raises DecodeError; of two equal variables the first counts, as in a process."""
    flags, start = payload[:1], 1
    if flags not in (b"\0", bytes([HAS_SANDBOX]), bytes([SANDBOX_GONE])):
        raise DecodeError("the request is broken", f"flags {flags!r}")
    environ: dict[str, str] = {}
    while (end := payload.find(b"\0", start)) > start:
        name, equals, value = payload[start:end].partition(b"=")
        if not equals:
            raise DecodeError("the request is broken", "a variable without '='")
        environ.setdefault(os.fsdecode(name), os.fsdecode(value))
        start = end + 1
    program = environ.pop("PROGRAM", "")
    if end < 0 or not program or not all(map(is_passed, environ)):
        raise DecodeError("the request is broken", "its variables are not those of a call")
    return Call(
        program=program,
        environ=environ,
        stdin=payload[end + 1 :],
        has_sandbox=bool(flags[0] & HAS_SANDBOX),
        sandbox_gone=bool(flags[0] & SANDBOX_GONE),
    )


def render_refusal(reason: str) -> bytes:
    text = reason.encode("utf-8", "replace")[:0xFFFF]
    return _REFUSAL.pack(b"N", len(text)) + text


def render_answer(status: int, stdout: bytes, stderr: bytes) -> bytes:
    """Raises DecodeError where a launcher would not take it: then nothing would be said at all."""
    if len(stdout) + len(stderr) > PAYLOAD_LIMIT:
        raise DecodeError("the answer is too large", f"at most {PAYLOAD_LIMIT} bytes")
    return _ANSWER.pack(b"R", status, len(stdout), len(stderr)) + stdout + stderr
