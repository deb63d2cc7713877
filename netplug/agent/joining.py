"""How a process that is not the agent makes this node a member of an overlay network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netplug import errors
from netplug.cli.handover import agent_socket
from netplug.errors import Unavailable
from netplug.model import Network

PATIENCE = 25.0  # seconds: joining may wait for an election of the store


def ask_agent(path: Path, command: str, **more: Any) -> dict[str, Any]:
    """The agent's answer. Raises what it raised, or Unavailable where none runs."""
    from netplug.agent.server import control

    try:
        answer = control(path, command, patience=PATIENCE, **more)
    except (OSError, ValueError) as error:
        raise Unavailable(
            "the agent does not answer",
            f"{path}: {error}",
            "overlay networks are the agent's work; run: netplug agent start",
        ) from error
    refused = answer.get("refused")
    if isinstance(refused, list):
        kind, what, why, hint = refused
        raise getattr(errors, str(kind), Unavailable)(what, why, hint)
    return answer


def join(network: Network) -> None:
    """Asks the agent, which owns all that joins nodes."""
    ask_agent(Path(agent_socket()), "overlay-join", config=network.raw)
