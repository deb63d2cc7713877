"""podman 4 of an ordinary user: the plugin runs as root of a user namespace, beside slirp4netns."""

from __future__ import annotations

import sys
from pathlib import Path

from engines.cell import eventually_none
from engines.flavour import Flavour
from engines.images import NAME, WEB_SERVER
from engines.podman import Podman


def test_containers_reach_each_other(rootless_podman: Podman) -> None:
    podman = rootless_podman
    podman.run("web", "--network", "lan", command=WEB_SERVER)
    address = podman.address("web", "lan")
    podman("run", "--rm", "--network", "lan", NAME, "ping", "-c1", "-W2", address)


def test_published_port_answers_from_the_host(rootless_podman: Podman) -> None:
    rootless_podman.run("web", "--network", "lan", "-p", "18080:80", command=WEB_SERVER)
    assert rootless_podman.cell.fetch("http://127.0.0.1:18080/") == "ok\n"


def test_addresses_are_distinct_and_given_back(rootless_podman: Podman) -> None:
    podman = rootless_podman
    for name in ("one", "two"):
        podman.run(name, "--network", "lan")
    first, second = podman.address("one", "lan"), podman.address("two", "lan")
    assert first != second
    podman("rm", "--force", "--time", "0", "one")
    podman.run("three", "--network", "lan", "--ip", first)
    assert podman.address("three", "lan") == first


def test_a_removed_container_leaves_nothing_behind_the_others(
    rootless_podman: Podman, flavour: Flavour
) -> None:
    podman = rootless_podman
    podman.run("keeper", "--network", "lan")  # with the last container its namespace goes, too
    before = podman.snapshot_of_rootless_network()
    podman.run("web", "--network", "lan", "-p", "18080:80", command=WEB_SERVER)
    assert before.added(podman.snapshot_of_rootless_network())
    podman("rm", "--force", "--time", "0", "web")
    assert not eventually_none(
        lambda: flavour.judge(before.added(podman.snapshot_of_rootless_network()))
    )


def test_beside_an_agent_of_root(rootless_podman: Podman) -> None:
    """It cannot be reached from the user's namespaces: one process does every call there."""
    podman = rootless_podman
    netplug = Path(sys.executable).with_name("netplug")
    podman.cell.run(netplug, "agent", "start")
    try:
        podman.run("web", "--network", "lan", "-p", "18080:80", command=WEB_SERVER)
        assert podman.cell.fetch("http://127.0.0.1:18080/") == "ok\n"
        podman("rm", "--force", "--time", "0", "web")
        assert podman.cell.run(netplug, "ps") == "nothing is attached\n"
        counted = podman.cell.run(netplug, "metrics")
        calls = [line for line in counted.splitlines() if line.startswith("netplug_requests_total")]
        assert calls == ['netplug_requests_total{verb="command",result="ok"} 1']
    finally:
        podman.cell.run(netplug, "agent", "stop")
        podman.cell.run("rm", "/run/netplug/agent.sock.stopped")
