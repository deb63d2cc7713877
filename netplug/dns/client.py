"""The engine's way to the name server: tells it of each change, and waits until it is visible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from netplug.dns.protocol import NAME, Channel, ask
from netplug.kernel import Kernel
from netplug.model import Dns
from netplug.state import Record, State

AGENT, AGENT_MAGIC = "agent.sock", b"NPC1"  # netplug.agent.server, which is slow to import


class NameService:
    """`engine.Names` over the control socket in `folder`.

    `start` brings the name server up, and says whether it is; by default the agent is asked
    to do so, where there is one. `channel` is one that is open already.
    """

    def __init__(
        self,
        folder: Path,
        log: Callable[[str], None],
        start: Callable[[], bool] | None = None,
        channel: Channel | None = None,
    ) -> None:
        self._log = log
        self._channel = channel or Channel(folder / NAME)
        self._start = start or (lambda: ask_agent(folder))

    def publish(self, state: State, record: Record, kernel: Kernel) -> Dns:
        """The record's names are visible when this returns. Whom the container can ask; nobody
        where no name server answers, which is said."""
        fds = tuple(fd for fd in (kernel.fd("host"), kernel.fd("sandbox")) if fd is not None)
        answer = self._sync(state, record, fds)
        if "down" in answer and self._start():
            answer = self._sync(state, record, fds)
        network = record.attachment.network
        for word in filter(None, map(answer.get, ("down", "error", "problem"))):
            self._log(f"network {network}: names: {word}")
        return Dns(nameservers=tuple(answer.get("told", ())))

    def withdraw(self, state: State, record: Record, kernel: Kernel) -> None:
        """They are no longer; where no name server answers, they are not anyway."""
        host = kernel.fd("host")
        self._sync(state, record, (host,) if host is not None else ())

    def fault(self) -> str:
        answer = self._ask({"command": "status"})
        if "down" in answer and self._start():
            return ""
        return str(answer.get("down") or answer.get("error") or "")

    def _sync(self, state: State, record: Record, fds: tuple[int, ...]) -> dict[str, Any]:
        request = {
            "command": "sync",
            "state": state.inode,
            "host": record.host,
            "owner": record.owner,
        }
        return self._ask(request, fds)

    def _ask(self, request: dict[str, Any], fds: tuple[int, ...] = ()) -> dict[str, Any]:
        """The answer; the key `down` says why there is none."""
        path = self._channel.path
        try:
            return self._channel.ask(request, fds)
        except (FileNotFoundError, ConnectionRefusedError):
            return {"down": f"no name server answers on {path} (run: netplug agent start)"}
        except (OSError, ValueError) as error:
            return {"down": f"the name server on {path} does not answer: {error}"}


def ask_agent(folder: Path) -> bool:
    """Has the agent brought the name server up?"""
    try:
        answer = ask(folder / AGENT, {"command": "names"}, magic=AGENT_MAGIC)
    except (OSError, ValueError):
        return False
    return answer.get("running") is True
