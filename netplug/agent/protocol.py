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

A command line has the flag COMMAND, its words (each but the last ended by NUL) for stdin, and
no sandbox. After 'G' the agent says, each as a byte, u32 bytes of data, and the data:

    'O' path    open this file, and answer u32 errno, with its descriptor where that is 0
    '1' text    for stdout; '2' for stderr
    'E' u8      exit status, the last word
    'N' reason  nothing was changed: do the work in one process

The answer: 'R', u8 exit status, u32 bytes of stdout, u32 bytes of stderr, both texts.
The refusal: 'N', u16 bytes of reason, the reason. Numbers are little endian.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from netplug.agent.wire import (
    ANSWER_MS,
    COMMAND,
    COMMAND_NAMES,
    HAS_SANDBOX,
    MAGIC,
    PAYLOAD_LIMIT,
    SANDBOX_GONE,
    SOCKET,
    WORK_MS,
)
from netplug.errors import DecodeError

__all__ = [
    "ANSWER_MS",
    "HAS_SANDBOX",
    "MAGIC",
    "PAYLOAD_LIMIT",
    "SANDBOX_GONE",
    "SOCKET",
    "WORK_MS",
]

BEGIN = b"B"
GO = b"G"

OWN_DESCRIPTORS = 3  # network, mount and user namespace of the launcher
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
    is_command: bool = False

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
    if flags not in [bytes([known]) for known in (0, HAS_SANDBOX, SANDBOX_GONE, COMMAND)]:
        raise DecodeError("the request is broken", f"flags {flags!r}")
    environ: dict[str, str] = {}
    while (end := payload.find(b"\0", start)) > start:
        name, equals, value = payload[start:end].partition(b"=")
        if not equals:
            raise DecodeError("the request is broken", "a variable without '='")
        environ.setdefault(os.fsdecode(name), os.fsdecode(value))
        start = end + 1
    program = environ.pop("PROGRAM", "")
    is_command = flags == bytes([COMMAND])
    passed = COMMAND_NAMES.__contains__ if is_command else is_passed
    if end < 0 or not program or not all(map(passed, environ)):
        raise DecodeError("the request is broken", "its variables are not those of a call")
    return Call(
        program=program,
        environ=environ,
        stdin=payload[end + 1 :],
        has_sandbox=bool(flags[0] & HAS_SANDBOX),
        sandbox_gone=bool(flags[0] & SANDBOX_GONE),
        is_command=is_command,
    )


def render_refusal(reason: str) -> bytes:
    text = reason.encode("utf-8", "replace")[:0xFFFF]
    return _REFUSAL.pack(b"N", len(text)) + text


def render_answer(status: int, stdout: bytes, stderr: bytes) -> bytes:
    """Raises DecodeError where a launcher would not take it: then nothing would be said at all."""
    if len(stdout) + len(stderr) > PAYLOAD_LIMIT:
        raise DecodeError("the answer is too large", f"at most {PAYLOAD_LIMIT} bytes")
    return _ANSWER.pack(b"R", status, len(stdout), len(stderr)) + stdout + stderr


def render_frame(kind: bytes, data: bytes) -> bytes:
    """What the agent says of a command."""
    return kind + len(data).to_bytes(4, "little") + data
