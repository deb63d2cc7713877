"""Starting the agent: by hand, or by systemd when the first call comes."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

from netplug.agent.autostart import stop_note
from netplug.agent.server import CREDENTIALS, control
from netplug.agent.spawn import agent_command, spawn
from netplug.dns.protocol import NAME
from netplug.errors import Conflict, NetplugError, PermissionRefused, Unavailable

START_SECONDS = 10.0

SOCKET_UNIT = """\
[Unit]
Description=netplug agent socket

[Socket]
ListenStream={socket}
SocketMode=0600
DirectoryMode=0700

[Install]
WantedBy=sockets.target
"""

# What is forbidden here the agent never needs. It must see the host's namespaces as engines
# do, so it gets no mount namespace of its own: nothing below Protect* or Private* that makes one.
SERVICE_UNIT = """\
[Unit]
Description=netplug agent: serves CNI calls without starting Python for each
Requires=netplug.socket
Wants=netplug-dns.service
After=netplug.socket netplug-dns.service

[Service]
ExecStart={command}
Restart=on-failure
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_DAC_OVERRIDE
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6 AF_PACKET
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
UMask=0077
"""


# A unit of its own, so that it answers on while the agent restarts; it ends with the socket.
DNS_UNIT = """\
[Unit]
Description=netplug name server: containers find each other by name
PartOf=netplug.socket

[Service]
ExecStart={python} -I -m netplug.dns {names} {folder}
Restart=always
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_DAC_OVERRIDE
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
UMask=0077
"""


def read_status(socket: Path) -> dict[str, object] | None:
    """What the agent says of itself; None when none answers."""
    try:
        return control(socket, "status")
    except (OSError, ValueError):
        return None


def start(
    socket: Path,
    folder: Path,
    log: Path | None = None,
    log_format: str = "text",
    config: Path | None = None,
) -> dict[str, object]:
    """Starts the agent in the background and waits until it answers; its status.

    A session of its own, standard descriptors on /dev/null (or the log), every other one
    closed, cwd /: it keeps nothing of its starter's. Raises Conflict, Unavailable.
    """
    Path(stop_note(str(socket))).unlink(missing_ok=True)
    _demand_none(socket)
    with open(log or "/dev/null", "ab") as output:
        command = agent_command(socket, folder) + ([str(config)] if config else [])
        process = spawn([*command, "--log-format", log_format], output)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        status = read_status(socket)
        if status is not None:
            process.returncode = 0  # it outlives us: nobody waits for it
            return status
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise Unavailable(
        "the agent did not start",
        f"nothing answers on {socket}",
        f"see why with: {sys.executable} -m netplug.agent {socket} {folder}",
    )


def stop(socket: Path) -> None:
    """Asks the agent to end and waits until it has; no call starts another one from now on.

    Raises NetplugError when none answers, Unavailable when it stays.
    """
    if socket.parent.is_dir():
        Path(stop_note(str(socket))).touch(mode=0o600)
    status = demand_running(socket)
    control(socket, "stop")
    deadline = time.monotonic() + START_SECONDS
    while Path(f"/proc/{status['pid']}/ns/net").exists():  # a zombie is in no namespace
        if time.monotonic() > deadline:
            raise Unavailable(
                "the agent does not end", "its process is there", f"kill {status['pid']}"
            )
        time.sleep(0.05)


def render_units(socket: Path, folder: Path, log_format: str = "text") -> dict[str, str]:
    """systemd's unit files, by name."""
    command = " ".join([*agent_command(socket, folder), "--log-format", log_format])
    values = {
        "socket": socket,
        "command": command,
        "names": socket.parent / NAME,
        "folder": folder,
        "python": sys.executable,
    }
    return {
        "netplug-dns.service": DNS_UNIT.format(**values),
        "netplug.socket": SOCKET_UNIT.format(**values),
        "netplug.service": SERVICE_UNIT.format(**values),
    }


def demand_running(path: Path) -> dict[str, object]:
    """The agent's status. Raises NetplugError when there is none, Unavailable when it hangs."""
    try:
        return control(path, "status")
    except TimeoutError:
        raise _hanging(path) from None
    except PermissionError as error:
        raise PermissionRefused(
            "the agent cannot be asked", f"{path}: {error.strerror}", "run as root"
        ) from error
    except (OSError, ValueError):
        raise NetplugError(
            "no agent answers", f"on {path}", "start it with: netplug agent start"
        ) from None


def _demand_none(path: Path) -> None:
    try:
        demand_running(path)
    except (Unavailable, PermissionRefused):
        raise
    except NetplugError:
        return
    raise Conflict(f"an agent runs already on {path}", "", "see: netplug agent status")


def _hanging(path: Path) -> Unavailable:
    pid = _read_listener(path)
    who = f"process {pid}" if pid > 1 else "the unit netplug.service"  # systemd made the socket
    return Unavailable(
        "the agent hangs",
        f"{who} says nothing on {path}; launchers and commands do without it",
        f"end it with: kill -KILL {pid}" if pid > 1 else "run: systemctl kill -s KILL netplug",
    )


def _read_listener(path: Path) -> int:
    """The process that listens there, 0 where it cannot be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.setblocking(False)
            probe.connect(str(path))
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        except OSError:
            return 0
    return int(CREDENTIALS.unpack(raw)[0])
