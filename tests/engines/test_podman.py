"""podman 4 of root: what its users do with a network, with netplug below it."""

from __future__ import annotations

import json

from engines.cell import eventually
from engines.flavour import Flavour
from engines.images import NAME, WEB_SERVER
from engines.podman import Podman


def test_run_gives_an_address_and_a_default_route(podman: Podman) -> None:
    podman.run("web", "--network", "lan", command=WEB_SERVER)
    address = podman.address("web", "lan")
    assert address.startswith("10.89.7.")
    routes = podman("run", "--rm", "--network", "lan", NAME, "ip", "route")
    assert "default via 10.89.7.1" in routes
    podman("run", "--rm", "--network", "lan", NAME, "ping", "-c1", "-W2", address)
    assert podman.cell.fetch(f"http://{address}/") == "ok\n"


def test_what_must_go_is_seen_while_it_is_there(podman: Podman, flavour: Flavour) -> None:
    # every test of this folder ends by asking the same question, and wants an empty answer
    before = podman.cell.snapshot()
    podman.run("web", "--network", "lan", "-p", "18080:80")
    kinds = {line.split(":")[0] for line in before.added(podman.cell.snapshot())}
    kept = {"files"} if flavour.name == "reference" else {"rows"}  # leases, in either's way
    assert kinds >= {"links", "rules", *kept}


def test_published_port_answers_from_the_host(podman: Podman) -> None:
    podman.run("web", "--network", "lan", "-p", "18080:80", command=WEB_SERVER)
    assert podman.cell.fetch("http://127.0.0.1:18080/") == "ok\n"
    assert podman.cell.fetch("http://10.89.7.1:18080/") == "ok\n"


def test_published_port_of_one_host_address(podman: Podman) -> None:
    podman.run("web", "--network", "lan", "-p", "127.0.0.1:18080:80", command=WEB_SERVER)
    assert podman.cell.fetch("http://127.0.0.1:18080/") == "ok\n"


def test_requested_address_and_mac(podman: Podman) -> None:
    podman.run("web", "--network", "lan:ip=10.89.7.77,mac=02:00:00:00:00:77", command=WEB_SERVER)
    assert podman.address("web", "lan") == "10.89.7.77"
    link = podman("exec", "web", "ip", "link", "show", "eth0")
    assert "02:00:00:00:00:77" in link


def test_requested_address_by_option(podman: Podman) -> None:
    podman.run("web", "--network", "lan", "--ip", "10.89.7.78")
    assert podman.address("web", "lan") == "10.89.7.78"


def test_network_alias_is_accepted(podman: Podman) -> None:
    podman.run("web", "--network", "lan", "--network-alias", "shop", command=WEB_SERVER)
    networks = json.loads(podman("inspect", "web"))[0]["NetworkSettings"]["Networks"]
    assert "shop" in networks["lan"]["Aliases"]


def test_two_networks_of_one_container(podman: Podman, flavour: Flavour) -> None:
    podman.add_network(flavour.network("back", "10.89.8.0/24", bridge="np1"))
    podman.run("web", "--network", "lan,back", command=WEB_SERVER)
    for network in ("lan", "back"):
        address = podman.address("web", network)
        podman("run", "--rm", "--network", network, NAME, "ping", "-c1", "-W2", address)


def test_connect_and_disconnect(podman: Podman, flavour: Flavour) -> None:
    podman.add_network(flavour.network("back", "10.89.8.0/24", bridge="np1"))
    podman.run("web", "--network", "lan", command=WEB_SERVER)
    podman.run("peer", "--network", "back")
    podman("network", "connect", "back", "web")
    address = podman.address("web", "back")
    assert address in podman("exec", "web", "ip", "-4", "address", "show", "eth1")
    podman("exec", "peer", "ping", "-c1", "-W2", address)
    podman("network", "disconnect", "back", "web")
    assert "eth1" not in podman("exec", "web", "ip", "link")
    assert podman.cell.fetch(f"http://{podman.address('web', 'lan')}/") == "ok\n"


def test_restart_keeps_the_network(podman: Podman) -> None:
    podman.run("web", "--network", "lan", "-p", "18080:80", command=WEB_SERVER)
    podman("restart", "--time", "0", "web")
    assert podman.cell.fetch("http://127.0.0.1:18080/") == "ok\n"


def test_a_container_that_ends_by_itself_gives_its_address_back(podman: Podman) -> None:
    options = ("--rm", "--network", "lan", "--ip", "10.89.7.9")
    podman("run", *options, NAME, "true")
    eventually(lambda: podman("run", *options, NAME, "true"))


def test_networks_are_listed(podman: Podman) -> None:
    listed = {line.split()[1]: line.split()[2] for line in podman("network", "ls").splitlines()}
    assert listed["lan"] == "netplug"
