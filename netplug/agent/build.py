"""Plugin files, made for this host: launcher.c compiled, launcher.py, or one process alone.

Each needs nothing but the absolute paths baked into it: engines run plugins with next to
no environment, and copy plugin folders around.
"""

from __future__ import annotations

import json
import marshal
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import netplug
from netplug.agent import protocol
from netplug.cni.result import render_about, render_error, render_version
from netplug.cni.versions import CURRENT
from netplug.errors import Busy, InputError, NetplugError, UnsupportedError

# Without `site` (-S) Python starts 15 ms sooner; where packages lie is baked in instead.
PATHS = list(
    dict.fromkeys(
        [
            str(Path(netplug.__file__).parents[1]),
            *(sysconfig.get_path(p) for p in ("purelib", "platlib")),
        ]
    )
)
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c11", "-Os", "-s", "-Wall", "-Wextra", "-Werror")
LINKS = {"static": ("-static",), "dynamic": ()}
FIRST_LINE_LIMIT = 255  # bytes of a script's first line that the kernel reads (BINPRM_BUF_SIZE)
SOCKET_LIMIT = 107  # bytes of sockaddr_un.sun_path without its NUL
PATIENCE = 60  # seconds for the compiler
ONE_PROCESS = """\
# The CNI plugin netplug; written by `netplug install`.
import sys
sys.path += {paths!r}
from netplug.alone import main
main(sys.argv[0].rpartition("/")[2])
"""
PYTHON = """\
# The CNI plugin netplug; written by `netplug install` from netplug/agent/launcher.py.
import marshal, sys
exec(marshal.loads({compiled!r}) if sys.hexversion == {version} else {text!r})
"""
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Settings:
    """What a launcher is told when it is made; `interpreter` runs the one-process plugin."""

    interpreter: str = sys.executable
    socket: str = protocol.SOCKET
    answer_ms: int = protocol.ANSWER_MS
    work_ms: int = protocol.WORK_MS
    autostart: bool = False  # the one-process plugin starts an agent after its answer

    @property
    def code(self) -> str:
        """What the interpreter executes to be the one-process plugin."""
        more = f", {self.socket!r}" if self.autostart else ""
        call = f"from netplug.alone import main; main(sys.argv[1]{more})"
        return f"import sys; sys.path += {PATHS!r}; {call}"


@dataclass(frozen=True, slots=True)
class Launcher:
    """A plugin file. `kind` says what it is, for people."""

    program: bytes
    kind: str


def make_launcher(settings: Settings, wanted: str = "auto") -> Launcher:
    """The `wanted` one: native, python, one-process; auto is native where it can be made.

    Raises UnsupportedError where native is wanted and cannot be; InputError for a path
    that no launcher can hold.
    """
    if wanted == "one-process":
        return Launcher(_script("-IS", ONE_PROCESS.format(paths=PATHS)), "one process, no agent")
    if wanted == "python":
        return render_python(settings)
    try:
        return compile_native(settings)
    except UnsupportedError as error:
        if wanted == "native":
            raise
        launcher = render_python(settings)
        return Launcher(launcher.program, f"{launcher.kind} ({error.what})")


# --- Python


def render_python(settings: Settings) -> Launcher:
    """For the Python that runs this. Raises InputError where its path fits no first line.

    The text is compiled here, for that would take a fifth of every call; another Python
    under the same path (a distribution's upgrade) finds the text as well.
    """
    values = "".join(f"{name} = {value!r}\n" for name, value in compute_values(settings).items())
    text = f"{(_HERE / 'launcher.py').read_text()}\n\n{values}main()\n"
    compiled = marshal.dumps(compile(text, "netplug", "exec", dont_inherit=True, optimize=2))
    script = PYTHON.format(version=sys.hexversion, compiled=compiled, text=text)
    return Launcher(_script("-ISE", script), f"Python, by {sys.executable}")


def _script(flags: str, text: str) -> bytes:
    line = f"#!{sys.executable} {flags}\n"
    if len(line.encode()) > FIRST_LINE_LIMIT or " " in sys.executable:
        raise InputError(
            f"the interpreter {sys.executable} cannot be named in a script's first line",
            f"the path is longer than {FIRST_LINE_LIMIT} bytes, or has a blank",
            "install netplug into a folder with a shorter path",
        )
    return (line + text).encode()


# --- C


def compile_native(settings: Settings, *, flags: Sequence[str] = ()) -> Launcher:
    """launcher.c, static where the C library can be. With `flags`, dynamic and with those.

    Raises UnsupportedError without a compiler, or where its program does not run here.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise UnsupportedError(
            "no C compiler",
            f"none of {', '.join(COMPILERS)} in PATH",
            "install gcc, or install with --python",
        )
    values = compute_values(settings)
    defines = [f"-D{name}={_c_literal(value)}" for name, value in values.items()]
    links = {"sanitized": tuple(flags)} if flags else LINKS
    failure = ""
    with tempfile.TemporaryDirectory(prefix="netplug-") as folder:
        target = Path(folder, "netplug")
        for kind, link in links.items():
            source = str(_HERE / "launcher.c")
            command = [compiler, *FLAGS, *link, *defines, "-o", str(target), source]
            failure = _failure(command, {**os.environ, "LC_ALL": "C"})
            failure = failure or _failure([target], {"CNI_COMMAND": "VERSION"}, values["VERSION"])
            if not failure:
                return Launcher(target.read_bytes(), f"native, {kind}, by {compiler}")
    raise UnsupportedError(
        f"{compiler} makes no launcher",
        failure,
        "install the C library's headers, or install with --python",
    )


def _failure(
    command: Sequence[str | Path], environ: Mapping[str, str], expected: object = b""
) -> str:
    """Why `command` did not print what is expected; empty where it did."""
    try:
        done = subprocess.run(
            command,
            env=dict(environ),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode or done.stdout != expected:
        return done.stderr.decode(errors="replace")[-500:] or f"exit {done.returncode}"
    return ""


def _c_literal(value: str | bytes | int) -> str:
    """A C expression of the same value; octal escapes, for they end by themselves."""
    if isinstance(value, int):
        return str(value)
    data = value.encode() if isinstance(value, str) else value
    plain = b'"\\?'  # ? begins a trigraph
    text = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in plain else f"\\{byte:03o}" for byte in data
    )
    return f'"{text}"'


# --- what both are told


def compute_values(settings: Settings) -> dict[str, str | bytes | int]:
    """The names that launcher.c and launcher.py list, with their values."""
    if len(settings.socket.encode()) > SOCKET_LIMIT:
        raise InputError(
            f"{settings.socket} is too long for a socket",
            f"the kernel takes {SOCKET_LIMIT} bytes",
            "choose a shorter path",
        )
    return {
        "INTERPRETER": settings.interpreter,
        "CODE": settings.code,
        "VERSION": f"{json.dumps(render_version())}\n".encode(),
        "ABOUT": render_about("\0").partition("\0")[2].encode(),
        "LOST": _render_error(
            Busy(
                "the agent ended while it worked on this call",
                "it may be done, half done or not done; what was begun is on record",
                "DEL removes it; or try again",
            )
        ),
        "NO_INTERPRETER": _render_error(
            InputError(
                "netplug cannot be run",
                f"its interpreter {settings.interpreter} cannot be executed",
                "run: netplug install",
            )
        ),
        "SOCKET": settings.socket,
        "MAGIC": protocol.MAGIC,
        "PAYLOAD_LIMIT": protocol.PAYLOAD_LIMIT,
        "ANSWER_MS": settings.answer_ms,
        "WORK_MS": settings.work_ms,
    }


def _render_error(error: NetplugError) -> bytes:
    return f"{json.dumps(render_error(error, CURRENT))}\n".encode()
