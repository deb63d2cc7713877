"""A thread's connection to the name server: kept, and made anew where it broke."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from netplug.dns.protocol import Channel


class Server:
    """Answers with the number of its connection; hangs up after `each` answers."""

    def __init__(self, path: Path, each: int) -> None:
        self.connections, self._each = 0, each
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(connection, self.connections)).start()

    def _answer(self, connection: socket.socket, number: int) -> None:
        with connection:
            for _ in range(self._each):
                if not connection.recv(1 << 16):
                    break
                connection.sendall(json.dumps({"number": number}).encode() + b"\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def test_it_is_kept_and_made_anew(path: Path) -> None:
    server, channel = Server(path, each=3), Channel(path)
    assert [channel.ask({})["number"] for _ in range(7)] == [1, 1, 1, 2, 2, 2, 3]
    channel.close()
    server.close()


def test_a_child_does_not_speak_on_its_parents(path: Path) -> None:
    server, channel = Server(path, each=9), Channel(path)
    assert channel.ask({})["number"] == 1
    ear, mouth = os.pipe()
    if not os.fork():
        try:
            os.write(mouth, str(channel.ask({})["number"]).encode())
        finally:
            os._exit(0)
    os.wait()
    assert os.read(ear, 9) == b"2"
    os.close(ear)
    os.close(mouth)
    assert channel.ask({})["number"] == 1
    channel.close()
    server.close()


def test_nobody_is_there(path: Path) -> None:
    server, channel = Server(path, each=1), Channel(path)
    channel.ask({})
    server.close()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            channel.ask({})
