"""The nft backend on a real kernel: its rulesets to the letter, foreign chains, cost, atomicity."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from firewall_world import (
    HOST,
    ONE,
    OTHER,
    OUT,
    OWNER,
    THREE,
    apply,
    build_world,
    dial,
    network,
    publish,
)
from nft_cases import CASES

from netplug.errors import Conflict, KernelRefused
from netplug.firewall import nft_accept
from netplug.firewall.intent import (
    Accept,
    Base,
    BridgePolicy,
    Intent,
    Mapping,
    Publish,
    SpoofGuard,
)
from netplug.firewall.nft import NftFirewall
from netplug.firewall.nft_accept import accept_rules
from netplug.firewall.nft_elements import scope_of
from netplug.firewall.nft_text import render_accept, render_shell
from netplug.kernel import nfnetlink
from netplug.kernel import nftables as nf
from netplug.kernel.nfnetlink import Message, Nfnetlink
from netplug.model import Family

GOLDEN = Path(__file__).parents[1] / "golden" / "nft"
BLOCK = re.compile(r"\t(?:set|map) [^\n]*\{\n(?:\t\t[^\n]*\n)*\t\}\n")


@pytest.fixture
def firewall(host: Any) -> Iterator[NftFirewall]:
    made = NftFirewall(host.fd)
    yield made
    made.close()


def listing(place: Any) -> str:
    return str(place.run("nft list ruleset"))


def frame(intent: Intent) -> list[Intent]:
    """What must be there before an intent can be."""
    return [] if isinstance(intent, (Base, Accept)) else [Base(scope_of(intent))]


# -- text ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_ruleset_is_the_golden_one_and_the_typed_one(
    name: str, firewall: NftFirewall, host: Any, make_host: Callable[[str], Any]
) -> None:
    intent = CASES[name]
    apply(firewall, *frame(intent), intent)
    made = listing(host)
    typist = make_host("typist")
    for step in (*frame(intent), intent):
        for command in render_shell(step):
            typist.run(command)
    assert made == listing(typist)
    other = NftFirewall(typist.fd)
    assert other.present(intent) == ""
    other.close()
    if " v1.0." in subprocess.run(["nft", "--version"], capture_output=True, text=True).stdout:
        shown = made if isinstance(intent, Base) else elements_of(made)
        assert shown == (GOLDEN / f"{name}.nft").read_text()


def elements_of(ruleset: str) -> str:
    """The sets and maps that hold anything."""
    return "".join(block for block in BLOCK.findall(ruleset) if "elements" in block)


# -- base ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        ("nft flush chain ip netplug guard", '"127.0.0.0/8 is on lo alone" of chain guard'),
        (
            "nft flush chain ip netplug forward; nft delete chain ip netplug forward",
            "chain forward",
        ),
        ("nft insert rule ip netplug forward accept", "the right rules in chain forward"),
        ("nft flush table ip netplug; nft delete set ip netplug masq", "set masq"),
    ],
)
def test_damage_to_the_frame_is_named_and_repaired(
    damage: str, word: str, firewall: NftFirewall, host: Any
) -> None:
    ports = publish(8080, ONE[4], 80)
    apply(firewall, Base(4), ports)
    before = listing(host)
    host.run(damage)
    assert word in (firewall.present(Base(4)) or "")
    assert firewall.apply(Base(4)) is True
    assert firewall.present(Base(4)) == ""
    assert firewall.present(ports) == ""  # elements outlive the repair of rules
    assert sorted(listing(host).split()) == sorted(before.split())


def test_a_rule_of_an_older_layout_differs(firewall: NftFirewall, host: Any) -> None:
    firewall.apply(Base("bridge"))
    host.run("nft flush chain bridge netplug spoof")
    with Nfnetlink(host.fd) as link:
        userdata = nfnetlink.pack_comment("netplug: frames carry the MAC of their container")
        userdata += bytes((0x4E, 8)) + bytes(8)
        rule = nf.new_rule(
            nf.BRIDGE, "netplug", "spoof", code=nf.verdict(nf.ACCEPT), userdata=userdata
        )
        assert link.transact([rule]) == []
    assert firewall.present(Base("bridge")) != ""
    assert firewall.apply(Base("bridge")) is True
    assert firewall.present(Base("bridge")) == ""


def test_elements_without_a_frame_say_how_to_get_one(firewall: NftFirewall) -> None:
    with pytest.raises(KernelRefused) as caught:
        firewall.apply(publish(8080, ONE[4], 80))
    assert "repair" in caught.value.hint
    firewall.undo(publish(8080, ONE[4], 80))
    assert firewall.remove_owned(OWNER) == 0


def test_nf_tables_is_usable_here(host: Any) -> None:
    assert NftFirewall.usable(host.fd) is None


# -- ports ---------------------------------------------------------------------------------


def many(count: int, owner: str = OWNER, start: int = 10000) -> Publish:
    address = ip_address(ONE[4])
    return Publish(
        owner, 4, tuple(Mapping("tcp", start + n, address, start + n) for n in range(count))
    )


def test_five_thousand_ports_at_once(firewall: NftFirewall, host: Any) -> None:
    ports = many(5000)
    apply(firewall, Base(4), ports)
    assert firewall.present(ports) == ""
    assert listing(host).count("netplug/" + OWNER) == 5000
    host.run("nft delete element ip netplug publish_any { tcp . 12345 }")
    assert firewall.present(ports) == ("publish_any lacks tcp . 12345 : 10.1.0.2 . 12345")
    assert firewall.apply(ports) is True
    assert firewall.present(ports) == ""
    firewall.undo(ports)
    assert firewall.present(ports) is None
    assert "netplug/" not in listing(host)


def test_the_cost_of_a_port_does_not_grow(
    firewall: NftFirewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No listing, and the same number of messages for the first port as for the 5001st."""

    def refuse(*_: object) -> None:
        pytest.fail("a set was listed")

    sent: list[int] = []
    transact, ask = Nfnetlink.transact, Nfnetlink.ask

    def count_transact(self: Nfnetlink, messages: list[Message]) -> Any:
        sent.append(len(messages))
        return transact(self, messages)

    def count_ask(self: Nfnetlink, messages: list[Message]) -> Any:
        sent.append(len(messages))
        return ask(self, messages)

    def cost(number: int) -> list[int]:
        sent.clear()
        port = publish(number, ONE[4], 80, owner=OTHER)
        firewall.apply(port)
        assert firewall.present(port) == ""
        firewall.undo(port)
        return list(sent)

    firewall.apply(Base(4))
    monkeypatch.setattr(Nfnetlink, "dump", refuse)
    monkeypatch.setattr(Nfnetlink, "transact", count_transact)
    monkeypatch.setattr(Nfnetlink, "ask", count_ask)
    first = cost(80)
    firewall.apply(many(5000))
    assert cost(81) == first


def test_a_conflict_names_port_and_holder(firewall: NftFirewall, host: Any) -> None:
    apply(firewall, Base(4), publish(10700, ONE[4], 80, owner=OTHER))
    before = listing(host)
    with pytest.raises(Conflict, match="port 10700/tcp is taken") as caught:
        firewall.apply(many(1000))
    assert OTHER in caught.value.why
    assert listing(host) == before
    firewall.undo(many(1000))
    assert listing(host) == before  # what another one holds is not ours to remove


def test_one_port_twice_is_refused(firewall: NftFirewall) -> None:
    firewall.apply(Base(4))
    address = ip_address(ONE[4])
    twice = Publish(OWNER, 4, (Mapping("tcp", 80, address, 80), Mapping("tcp", 80, address, 81)))
    with pytest.raises(Conflict, match="twice"):
        firewall.apply(twice)
    assert firewall.owners() == set()


def test_our_own_element_that_leads_elsewhere_is_put_right(firewall: NftFirewall) -> None:
    apply(firewall, Base(4), publish(80, "10.1.0.9", 80))
    right = publish(80, ONE[4], 80)
    assert "lacks" in (firewall.present(right) or "")
    assert firewall.apply(right) is True
    assert firewall.present(right) == ""


# -- foreign chains ------------------------------------------------------------------------


@pytest.mark.parametrize("docker", [False, True], ids=["head", "DOCKER-USER"])
def test_iptables_nft_policy_drop(host: Any, firewall: NftFirewall, docker: bool) -> None:
    world = build_world(host)
    for policy in ("iptables-nft -P FORWARD", "iptables-nft -P INPUT", "ip6tables-nft -P FORWARD"):
        host.run(f"{policy} DROP")
    if docker:
        host.run("iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER")
    ports = [publish(8080, ONE[4], 80), publish(8080, ONE[6], 80)]
    steps = [*network(), *network("br1", isolated=True), *ports]
    apply(firewall, *(step for step in steps if not isinstance(step, Accept)))
    assert dial(world.out, (HOST[4], 8080), world.one, 80) is None  # the drop is real
    accepts = [step for step in steps if isinstance(step, Accept)]
    assert [firewall.present(step) for step in accepts] == [None] * 4
    assert [firewall.apply(step) for step in accepts] == [True] * 4
    assert [firewall.apply(step) for step in accepts] == [False] * 4
    assert [firewall.present(step) for step in steps] == [""] * len(steps)
    for family in (4, 6):
        assert dial(world.out, (HOST[family], 8080), world.one, 80)
        assert dial(world.one, (OUT[family], 80), world.out, 80)
        assert dial(world.one, (THREE[family], 80), world.three, 80) is None
        assert dial(world.out, (ONE[family], 80), world.one, 80) is None
    assert dial(world.one, ("10.1.0.1", 53), host, 53)
    assert dial(world.one, ("10.1.0.1", 22), host, 22) is None
    shown = host.run("iptables-nft -S")
    chain = "DOCKER-USER" if docker else "FORWARD"
    assert f'-A {chain} -i br0 -m comment --comment "netplug: br0 (IPv4)" -j ACCEPT' in shown
    assert "incompatible" not in shown
    host.run("iptables-nft -D FORWARD 1" if not docker else "iptables-nft -F DOCKER-USER")
    assert any(firewall.present(step) != "" for step in accepts)
    apply(firewall, *accepts)
    assert [firewall.present(step) for step in accepts] == [""] * 4
    for step in accepts:
        firewall.undo(step)
    assert "netplug" not in host.run("iptables-nft -S; ip6tables-nft -S")


def test_accepts_are_what_one_would_type(
    host: Any, firewall: NftFirewall, make_host: Callable[[str], Any]
) -> None:
    typist = make_host("typist")
    chains = {
        "filter": nf.Chain(nf.IPV4, "filter", "FORWARD", hook=nf.FORWARD),
        "firewalld": nf.Chain(nf.INET, "firewalld", "filter_INPUT", hook=nf.INPUT),
    }
    setup = (
        "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority"
        " 0; policy drop; }; add table inet firewalld; add chain inet firewalld filter_INPUT { type"
        " filter hook input priority 10; policy accept; }; add rule inet firewalld filter_INPUT"
        " reject with icmpx admin-prohibited'"
    )
    intent = Accept("br0", 4)
    for place in (host, typist):
        place.run(setup)
    assert firewall.apply(intent) is True
    for chain in chains.values():
        assert len(accept_rules(intent, chain)) == 2
        for command in render_accept(intent, chain):
            typist.run(command)
    assert listing(host) == listing(typist)
    assert firewall.present(intent) == ""
    firewall.undo(intent)
    assert "netplug" not in listing(host)


@pytest.mark.parametrize("form", ["-P FORWARD DROP", "-A FORWARD -j REJECT"])
def test_legacy_tables_that_drop_are_opened(host: Any, firewall: NftFirewall, form: str) -> None:
    world = build_world(host)
    host.run("iptables-legacy -A FORWARD -s 203.0.113.0/24 -j ACCEPT")
    apply(firewall, *network())
    assert "netplug" not in host.run("iptables-legacy -S")
    host.run(f"iptables-legacy {form}")
    assert dial(world.one, (OUT[4], 80), world.out, 80) is None
    accept = Accept("br0", 4)
    assert firewall.present(accept) != ""
    assert firewall.apply(accept) is True
    assert firewall.present(accept) == ""
    assert firewall.foreign_drops() == []
    assert dial(world.one, (OUT[4], 80), world.out, 80)
    firewall.undo(accept)
    assert "netplug" not in host.run("iptables-legacy -S")


@pytest.mark.parametrize("family", [4, 6])
def test_legacy_tables_that_cannot_be_opened_are_told(
    host: Any, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft_accept, "_can_open_legacy", lambda: False)  # no python-iptables
    firewall = NftFirewall(host.fd)
    assert firewall.foreign_drops() == []
    command = {4: "iptables-legacy", 6: "ip6tables-legacy"}[family]
    host.run(f"{command} -P FORWARD DROP; {command} -A FORWARD -i br9 -j ACCEPT")
    (words,) = firewall.foreign_drops()
    assert words.startswith(f"chain FORWARD of the legacy filter table (IPv{family})")
    assert f"{command} -I FORWARD -i BRIDGE -j ACCEPT" in words
    assert firewall.apply(Accept("br0", family)) is False
    assert firewall.present(Accept("br0", family)) == ""
    host.run(f"{command} -P FORWARD ACCEPT; {command} -A FORWARD -p tcp -j DROP")
    assert firewall.foreign_drops() == []
    firewall.close()


# -- spoof guard ---------------------------------------------------------------------------


def test_frames_with_another_mac_are_dropped(host: Any, firewall: NftFirewall) -> None:
    world = build_world(host)
    mac = world.one.run("ip -o link show eth0").split("link/ether ")[1].split()[0]
    guard = SpoofGuard(OWNER, "v12", mac)
    apply(firewall, Base("bridge"), guard)
    assert dial(world.one, ("10.1.0.3", 80), world.two, 80)
    world.one.run("ip link set eth0 address 02:00:00:00:66:66")
    assert dial(world.one, ("10.1.0.3", 80), world.two, 80) is None
    assert firewall.owners() == {OWNER}
    assert firewall.present(SpoofGuard(OWNER, "v12", "02:00:00:00:66:66")) != ""
    firewall.undo(guard)
    assert firewall.present(guard) is None
    for place in (world.one, world.two):  # one asked in vain, two knows the old address
        place.run("ip neighbour flush dev eth0")
    assert dial(world.one, ("10.1.0.3", 80), world.two, 80)


def test_policy_elements_are_shared_and_named(firewall: NftFirewall) -> None:
    apply(firewall, Base(4), BridgePolicy("br0", 4, isolated=True))
    assert firewall.present(BridgePolicy("br0", 4)) == 'isolated has "br0"'
    assert firewall.present(BridgePolicy("br0", 4, isolated=True, routed=True)) == (
        'unrouted has "br0"'
    )
    assert firewall.present(BridgePolicy("br1", 4)) is None
