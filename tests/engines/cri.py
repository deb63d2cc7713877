"""The few calls of the Kubernetes container runtime interface (CRI, runtime.v1) that tests need.

Messages are written field by field in protobuf's wire format: numbers and strings are all there
is, and so no generated code and no compiler are needed. Numbers are those of api.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .images import NAME

Value = int | str | bytes
Message = dict[int, list[int | bytes]]
SERVICE = "/runtime.v1.RuntimeService/"
VARINT, BYTES = 0, 2  # wire types
PATIENCE = 60  # seconds


def render_message(*fields: tuple[int, Value]) -> bytes:
    """A message of (number, value) pairs; a nested message is bytes already rendered."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            out += render_varint(number << 3 | VARINT) + render_varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += render_varint(number << 3 | BYTES) + render_varint(len(data)) + data
    return bytes(out)


def render_varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def parse_message(data: bytes) -> Message:
    """The values of each field number; a nested message stays bytes."""
    message: Message = {}
    stream = iter(data)
    for first in stream:
        number, wire_type = divmod(parse_varint(stream, first), 8)
        value: int | bytes = parse_varint(stream)
        if wire_type == BYTES:
            value = bytes(next(stream) for _ in range(int(value)))
        elif wire_type != VARINT:
            raise ValueError(f"wire type {wire_type} is in none of these messages")
        message.setdefault(number, []).append(value)
    return message


def parse_varint(stream: Iterator[int], first: int | None = None) -> int:
    number, shift = 0, 0
    byte = next(stream) if first is None else first
    while byte & 0x80:
        number |= (byte & 0x7F) << shift
        shift += 7
        byte = next(stream)
    return number | byte << shift


def text(message: Message, number: int) -> str:
    value = message.get(number, [b""])[0]
    assert isinstance(value, bytes)
    return value.decode()


def nested(message: Message, number: int) -> list[Message]:
    return [parse_message(value) for value in message.get(number, []) if isinstance(value, bytes)]


class NetworkNotReady(AssertionError):
    """The runtime has not loaded a network for its pods."""


@dataclass(frozen=True, slots=True)
class Pod:
    id: str
    config: bytes


@dataclass(slots=True)
class Cri:
    """A client. `make_call` is grpc.Channel.unary_unary."""

    make_call: Callable[..., Any]
    _pods: set[str] = field(default_factory=set)

    def _call(self, method: str, *fields: tuple[int, Value]) -> Message:
        # Without serialisers gRPC carries bytes, and bytes are what we have.
        answer = self.make_call(SERVICE + method)(render_message(*fields), timeout=PATIENCE)
        return parse_message(answer)

    def require_network(self) -> None:
        """Raises NetworkNotReady until the runtime reports the condition NetworkReady."""
        (status,) = nested(self._call("Status"), 1)
        for condition in nested(status, 1):
            if text(condition, 1) == "NetworkReady" and condition.get(2) == [1]:
                return
        raise NetworkNotReady("no pod network is loaded")

    def run_pod(self, name: str, ports: Sequence[tuple[int, int]] = ()) -> Pod:
        """A pod with the TCP `ports` (host, container) published."""
        identity = render_message((1, name), (2, f"uid-of-{name}"), (3, "default"))
        mappings = [(5, render_message((2, inner), (3, outer))) for outer, inner in ports]
        config = render_message((1, identity), (2, name), (3, "/run/pod-logs"), *mappings)
        pod = Pod(text(self._call("RunPodSandbox", (1, config)), 1), config)
        self._pods.add(pod.id)
        return pod

    def addresses(self, pod: Pod) -> list[str]:
        """The pod's addresses as the runtime reports them, the preferred one first."""
        (status,) = nested(self._call("PodSandboxStatus", (1, pod.id)), 1)
        (network,) = nested(status, 5)
        return [text(network, 1), *(text(more, 1) for more in nested(network, 2))]

    def run_container(self, pod: Pod, name: str, *command: str) -> str:
        """The id of a started container of the test image."""
        words = [(3, word) for word in command]
        config = render_message(
            (1, render_message((1, name))), (2, render_message((1, NAME))), *words, (11, name)
        )
        created = self._call("CreateContainer", (1, pod.id), (2, config), (3, pod.config))
        self._call("StartContainer", (1, text(created, 1)))
        return text(created, 1)

    def execute(self, container: str, *command: str) -> str:
        """The stdout of a command; AssertionError with its stderr unless it ends with 0."""
        words = [(2, word) for word in command]
        answer = self._call("ExecSync", (1, container), *words, (3, PATIENCE // 2))
        assert answer.get(3, [0]) == [0], f"{command}: {text(answer, 1)}{text(answer, 2)}"
        return text(answer, 1)

    def stop_pod(self, pod: str) -> None:
        self._call("StopPodSandbox", (1, pod))

    def remove_pod(self, pod: str) -> None:
        self._call("RemovePodSandbox", (1, pod))
        self._pods.discard(pod)

    def remove_pods(self) -> None:
        """Every pod that was made here and not removed."""
        for pod in sorted(self._pods):
            self.stop_pod(pod)
            self.remove_pod(pod)
