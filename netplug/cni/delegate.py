"""Calls a foreign plugin (an IPAM plugin, mostly) over the CNI exec interface.

This is an edge: the one module of `cni` that starts processes. Its own answer is left
to the plugin: its typed errors keep their codes, its stderr goes where ours goes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from netplug.cni.golang import parse_object, shown
from netplug.cni.protocol import Request
from netplug.cni.result import parse_result
from netplug.errors import DelegateError, NetplugError
from netplug.model import Result

TIMEOUT = 120.0  # seconds; a DHCP exchange is the slowest thing that a plugin does
BUSY_RETRIES = 5  # times a second apart: the file is just being installed (libcni)


def find_plugin(name: str, path: Sequence[str]) -> str:
    """The first regular file of that name in the folders of CNI_PATH. Raises DelegateError."""
    if not name or "/" in name or "\0" in name:
        raise DelegateError(
            f"plugin name {shown(name)} is wrong",
            "a plugin is named by a file name alone",
            "correct ipam.type",
            started=False,
        )
    for folder in path:
        candidate = f"{folder}/{name}"
        if os.path.isfile(candidate):
            return candidate
    raise DelegateError(
        f'failed to find plugin "{name}" in path [{" ".join(path)}]',
        "no folder of CNI_PATH has a file of this name",
        f"install {name}, or correct ipam.type",
        started=False,
    )


@dataclass(frozen=True, slots=True)
class Delegate:
    """A foreign plugin of type `kind` that answers for a part of `request`.

    It gets the stdin of the request, our environment, and the request's CNI variables.
    """

    request: Request
    kind: str
    timeout: float = TIMEOUT

    def add(self) -> Result:
        """The addresses that an IPAM plugin gives. Raises DelegateError, also for none."""
        result = self.run("ADD")
        if result is None or not result.ips:
            raise DelegateError(
                "IPAM plugin returned missing IP config",
                f"the result of {self.kind} has no addresses",
                f"check the ipam section for {self.kind}",
            )
        return result

    def run(self, command: str) -> Result | None:
        """The result of an ADD, None where the plugin printed none. Raises DelegateError."""
        program = find_plugin(self.kind, self.request.path)
        environ = {**os.environ, **_variables(self.request, command)}
        output, status = _run(program, self.request.stdin, environ, self.timeout)
        if status:
            raise _failure(self.kind, command, output, status)
        if command != "ADD" or not output.strip():
            return None
        try:
            printed = parse_object(output, f"output of {self.kind}")
            return parse_result(dict(printed), self.request.version)
        except NetplugError as error:
            raise DelegateError(
                f"{self.kind} printed no CNI result", str(error), f"is {program} a CNI plugin?"
            ) from error


def _variables(request: Request, command: str) -> dict[str, str]:
    return {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": request.container,
        "CNI_NETNS": request.netns,
        "CNI_IFNAME": request.ifname,
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in request.args.items()),
        "CNI_PATH": ":".join(request.path),
    }


def _run(
    program: str, stdin: bytes, environ: Mapping[str, str], timeout: float
) -> tuple[bytes, int]:
    """(stdout, exit status); a plugin that runs too long is killed with all it started."""
    process = _start(program, environ)
    try:
        output, _ = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise DelegateError(
            f"plugin {program} did not finish",
            f"it was stopped after {timeout:g} s",
            "run it by hand, or look into its log",
        ) from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        _close(process.stdin, process.stdout)
    return output, process.returncode


def _close(*pipes: IO[bytes] | None) -> None:
    for pipe in pipes:
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()


def _start(program: str, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    for attempt in range(BUSY_RETRIES + 1):
        try:
            return subprocess.Popen(
                [program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=dict(environ),
                start_new_session=True,  # one group, so that a timeout ends its children too
            )
        except OSError as error:
            if error.errno != errno.ETXTBSY or attempt == BUSY_RETRIES:
                raise DelegateError(
                    f"plugin {program} cannot be executed",
                    error.strerror or str(error),
                    "check its mode and its interpreter",
                    started=False,
                ) from error
        time.sleep(1)
    raise AssertionError("unreachable")


def _failure(name: str, command: str, output: bytes, status: int) -> DelegateError:
    """The plugin's own error where it printed one."""
    what = f'plugin "{name}" failed ({command.lower()})'
    if not output.strip():
        ending = f"signal {-status}" if status < 0 else f"exit status {status}"
        return DelegateError(what, f"{ending} and no message", "its log may say more")
    try:
        error = parse_object(output, "output")
    except NetplugError:
        text = output.decode("utf-8", "replace").strip()
        return DelegateError(what, f"it printed no CNI error but {shown(text)}")
    code = error.get("code")
    texts = [error.get(key) for key in ("msg", "details")]
    return DelegateError(
        what,
        "; ".join(text for text in texts if isinstance(text, str) and text),
        delegate_code=code if isinstance(code, int) and not isinstance(code, bool) else None,
    )
