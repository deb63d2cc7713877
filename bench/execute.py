"""Executing programs at little cost of our own, and at the same cost for everybody.

`subprocess` spends more than a native launcher takes; here it is posix_spawn and two pipes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# A shell that is there already and becomes the program once the pipe at 3 ends.
WAITING = ("/bin/sh", "-c", 'read -r line <&3; exec 3<&-; exec "$@"', "sh")


class ProgramFailed(Exception):
    """A program refused; the text is its own."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A program with all that it is given; its environment is no more than `environ`."""

    words: Sequence[str]
    stdin: str
    environ: Mapping[str, str]

    @property
    def title(self) -> str:
        verb = self.environ.get("CNI_COMMAND") or " ".join(self.words[1:])
        return f"{Path(self.words[0]).name} {verb}"


def execute(execution: Execution) -> str:
    """Its stdout. Raises ProgramFailed.

    What it reads must fit into a pipe (64 KiB), for it is written before anybody reads.
    """
    with _make_file() as errors:
        their_input, our_end = os.pipe()
        our_output, their_output = os.pipe()
        os.write(our_end, execution.stdin.encode())
        os.close(our_end)
        child = _spawn(execution.words, execution.environ, (their_input, their_output), errors)
        os.close(their_input)
        os.close(their_output)
        with open(our_output, "rb", buffering=0) as pipe:
            output = pipe.read()
        _, status = os.waitpid(child, 0)
        _demand_success(execution, status, output, errors)
    return output.decode()


def execute_at_once(executions: Sequence[Execution]) -> tuple[float, list[str]]:
    """Seconds from the common start to the end of the last, and what each printed.

    Their processes wait before the clock starts, so that creating them is not measured.
    Raises ProgramFailed.
    """
    with ExitStack() as stack:
        files = [[stack.enter_context(_make_file()) for _ in range(3)] for _ in executions]
        gate, opener = os.pipe()
        children = []
        for execution, (stdin, stdout, errors) in zip(executions, files, strict=True):
            stdin.write(execution.stdin.encode())
            stdin.seek(0)
            words = [*WAITING, *execution.words]
            ends = stdin.fileno(), stdout.fileno()
            children.append(_spawn(words, execution.environ, ends, errors, gate))
        os.close(gate)
        time.sleep(0.1 + 0.002 * len(executions))  # until all of them wait
        started = time.perf_counter()
        os.close(opener)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        seconds = time.perf_counter() - started
        outputs = []
        for execution, status, (_, stdout, errors) in zip(executions, statuses, files, strict=True):
            stdout.seek(0)
            outputs.append(output := stdout.read())
            _demand_success(execution, status, output, errors)
    return seconds, [output.decode() for output in outputs]


def _make_file() -> IO[bytes]:
    """In memory, closed on exec."""
    return open(os.memfd_create("bench"), "w+b", buffering=0)


def _spawn(
    words: Sequence[str],
    environ: Mapping[str, str],
    ends: tuple[int, int],
    errors: IO[bytes],
    gate: int | None = None,
) -> int:
    """The process. Other descriptors of ours are closed on exec: Python opens them so."""
    given = dict(enumerate((*ends, errors.fileno(), *(() if gate is None else (gate,)))))
    # Moved up first: one of them could be the number that another is to get.
    free = 1 + max(given.values())
    actions = [(os.POSIX_SPAWN_DUP2, fd, free + number) for number, fd in given.items()]
    actions += [(os.POSIX_SPAWN_DUP2, free + number, number) for number in given]
    closing = [(os.POSIX_SPAWN_CLOSE, free + number) for number in given]
    return os.posix_spawn(
        words[0],
        tuple(words),
        environ,
        file_actions=[*actions, *closing],
        setsigdef=[signal.SIGPIPE],
    )


def _demand_success(execution: Execution, status: int, output: bytes, errors: IO[bytes]) -> None:
    if status:
        errors.seek(0)
        said = (output + errors.read()).decode(errors="replace").strip()
        raise ProgramFailed(f"{execution.title}: {said or f'wait status {status}'}")
