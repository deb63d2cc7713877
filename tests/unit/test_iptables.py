"""The pure half of the iptables backend: rules, commands, comments, and the child's answers."""

from __future__ import annotations

import json
import shlex
from ipaddress import ip_address, ip_network

import pytest

from netplug.errors import Busy, Conflict, KernelRefused, UnsupportedError
from netplug.firewall.intent import (
    Accept,
    Base,
    BridgePolicy,
    Intent,
    Mapping,
    Publish,
    SpoofGuard,
    Subnet,
)
from netplug.firewall.iptables import process
from netplug.firewall.iptables.rules import (
    compute_legacy_accept,
    compute_ruleset,
    owner_comment,
    parse_owner,
    parse_subnet,
    render_shell,
)
from netplug.model import Attachment

OWNER = Attachment("lan", "web", "eth0").tag
WEB = Mapping("tcp", 8080, ip_address("10.1.0.2"), 80)
INTENTS: list[Intent] = [
    Base(4),
    Base(6),
    BridgePolicy("br0", 4, internal=True),
    BridgePolicy("br0", 6, isolated=True, routed=True),
    Subnet(ip_network("10.1.0.0/24"), "br0", masquerade=True),
    Accept("br0", 6),
    Publish(OWNER, 4, (WEB,)),
]


@pytest.mark.parametrize("intent", INTENTS, ids=repr)
def test_every_rule_says_whose_it_is_and_fits_the_kernel(intent: Intent) -> None:
    ruleset = compute_ruleset(intent)
    assert ruleset.comment.startswith("netplug")
    assert not set(ruleset.comment) & set(" \"'\\")
    assert len(ruleset.comment) < 256  # XT_MAX_COMMENT_LEN
    assert all(len(chain) <= 28 for _, chain in ruleset.chains)
    assert len(set(ruleset.rules)) == len(ruleset.rules)


@pytest.mark.parametrize("intent", INTENTS, ids=repr)
def test_a_command_is_one_line_for_the_shell(intent: Intent) -> None:
    for command in render_shell(intent):
        words = shlex.split(command)
        assert words[0] == ("iptables-legacy" if compute_ruleset(intent).family == 4 else
                            "ip6tables-legacy")  # fmt: skip
        assert words[1] == "-w"


def test_published_port_reads_as_one_would_type_it() -> None:
    assert render_shell(Publish(OWNER, 4, (WEB,))) == [
        "iptables-legacy -w -t nat -A NETPLUG-DNAT -p tcp -m tcp --dport 8080"
        f" -m comment --comment netplug/{OWNER} -j DNAT --to-destination 10.1.0.2:80"
    ]


def test_a_host_address_goes_before_any_address() -> None:
    here = Mapping("tcp", 8080, ip_address("10.1.0.3"), 80, ip_address("192.0.2.1"))
    anywhere = Mapping("tcp", 8080, ip_address("10.1.0.2"), 80, ip_address("0.0.0.0"))
    rules = compute_ruleset(Publish(OWNER, 4, (here, anywhere))).rules
    assert [(rule.place, rule.destination) for rule in rules] == [
        ("head", "192.0.2.1"),
        ("last", ""),
    ]


def test_one_port_twice_is_a_conflict() -> None:
    other = Mapping("tcp", 8080, ip_address("10.1.0.2"), 81)
    with pytest.raises(Conflict, match=r"8080/tcp is published twice.*:80 and to .*:81"):
        compute_ruleset(Publish(OWNER, 4, (WEB, other)))
    assert len(compute_ruleset(Publish(OWNER, 4, (WEB, WEB))).rules) == 1


def test_ipv6_target_has_brackets() -> None:
    web = Mapping("tcp", 80, ip_address("fd00::2"), 8080)
    assert "'[fd00::2]:8080'" in render_shell(Publish(OWNER, 6, (web,)))[0]


@pytest.mark.parametrize(
    "intent", [Base("bridge"), SpoofGuard(OWNER, "veth0", "02:00:00:00:00:01")]
)
def test_frames_on_a_bridge_are_out_of_reach(intent: Intent) -> None:
    with pytest.raises(UnsupportedError, match="macspoofchk") as caught:
        compute_ruleset(intent)
    assert "nft" in caught.value.hint


@pytest.mark.parametrize("name", ["br+", "!br"])
def test_a_bridge_that_iptables_would_misread_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match="cannot serve the bridge"):
        compute_ruleset(BridgePolicy(name, 4))
    with pytest.raises(UnsupportedError):
        compute_legacy_accept(Accept(name, 4))


def test_comments_read_back() -> None:
    assert parse_owner(owner_comment(OWNER)) == OWNER
    for intent in INTENTS[:-1]:
        assert parse_owner(compute_ruleset(intent).comment) is None
    subnet = Subnet(ip_network("fd00:1::/64"), "br0")
    assert parse_subnet(compute_ruleset(subnet).comment) == ("br0", "fd00:1::/64")
    assert parse_subnet("netplug/policy/br0") == ("", "")


def test_internal_wins_over_the_weaker_words() -> None:
    both = BridgePolicy("br0", 4, internal=True, isolated=True, routed=True)
    assert compute_ruleset(both) == compute_ruleset(BridgePolicy("br0", 4, internal=True))


def test_the_childs_errors_come_back_as_they_were() -> None:
    reply = {"error": "KernelRefused", "what": "a", "why": "b", "hint": "c", "errno": 1}
    with pytest.raises(KernelRefused, match="a: b") as caught:
        process._parse_answer(json.dumps(reply), "")
    assert caught.value.hint == "c"
    assert caught.value.errno == 1
    with pytest.raises(Busy):
        process._parse_answer(json.dumps({**reply, "error": "Busy"}), "")
    assert process._parse_answer('{"result": ""}', "noise") == ""


def test_a_child_that_dies_is_no_silence() -> None:
    with pytest.raises(KernelRefused, match="Boom"):
        process._parse_answer("", "Traceback\nBoom: x\n")
    with pytest.raises(KernelRefused, match="no answer"):
        process._parse_answer("", "")
