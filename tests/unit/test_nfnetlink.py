"""Hand-packed messages, read back by pyroute2's decoder: two independent views of one wire."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from pyroute2.netlink.nfnetlink import nftsocket

from netplug.firewall.intent import Mapping, Publish, Subnet
from netplug.firewall.nft_elements import compute_elements, pack_element
from netplug.firewall.nft_layout import LAYOUTS, rule_userdata
from netplug.kernel import netlink, nfnetlink, nftables
from netplug.kernel.nfnetlink import Message

CLASSES = {
    nftables.NEWTABLE: nftsocket.nft_table_msg,
    nftables.NEWCHAIN: nftsocket.nft_chain_msg,
    nftables.NEWRULE: nftsocket.nft_rule_msg,
    nftables.NEWSET: nftsocket.nft_set_msg,
    nftables.NEWSETELEM: nftsocket.nft_set_elem_list_msg,
}


def decode(message: Message) -> Any:
    packed = nfnetlink._pack(message, 7, message.flags)
    decoded = CLASSES[message.kind & 0xFF](packed)
    decoded.decode()
    assert decoded["header"]["length"] == len(packed)
    assert decoded["header"]["type"] >> 8 == nfnetlink.SUBSYSTEM_NFTABLES
    assert decoded["nfgen_family"] == message.family
    return decoded


def test_table_and_chain() -> None:
    assert decode(nftables.new_table(2, "netplug")).get_attr("NFTA_TABLE_NAME") == "netplug"
    chain = nftables.Chain(0, "netplug", "guard", kind="filter", hook=0, priority=-300)
    decoded = decode(nftables.new_chain(2, "netplug", chain))
    assert decoded.get_attr("NFTA_CHAIN_NAME") == "guard"
    assert decoded.get_attr("NFTA_CHAIN_TYPE") == "filter"
    hook = decoded.get_attr("NFTA_CHAIN_HOOK")
    assert hook.get_attr("NFTA_HOOK_HOOKNUM") == 0
    assert hook.get_attr("NFTA_HOOK_PRIORITY") == -300


@pytest.mark.parametrize("scope", [4, 6, "bridge"])
def test_every_set_of_the_layout(scope: Any) -> None:
    for item in LAYOUTS[scope].sets:
        decoded = decode(nftables.new_set(2, "netplug", item.shape, 1))
        assert decoded.get_attr("NFTA_SET_NAME") == item.name
        sizes = [size for _, size in item.shape.key]
        width = sizes[0] if len(sizes) == 1 else sum(-(-size // 4) * 4 for size in sizes)
        assert decoded.get_attr("NFTA_SET_KEY_LEN") == width
        assert ("NFT_SET_MAP" in str(decoded.get_attr("NFTA_SET_FLAGS"))) == bool(item.data)


@pytest.mark.parametrize("scope", [4, 6, "bridge"])
def test_every_rule_of_the_layout(scope: Any) -> None:
    for rule in LAYOUTS[scope].rules:
        message = nftables.new_rule(
            2, "netplug", rule.chain, code=rule.code, userdata=rule_userdata(rule)
        )
        decoded = decode(message)
        assert decoded.get_attr("NFTA_RULE_CHAIN") == rule.chain
        names = [
            item.get_attr("NFTA_EXPR_NAME") for item in decoded.get_attr("NFTA_RULE_EXPRESSIONS")
        ]
        assert names == expected_names(rule.text)
        userdata = netlink.attributes(message.body)[7]
        assert nfnetlink.unpack_comment(userdata) == f"netplug: {rule.why}"


def expected_names(text: str) -> list[str]:
    """The expressions of a rule, as its nft text implies them."""
    names: list[str] = []
    words = text.split()
    for index, word in enumerate(words):
        after = words[index + 1 :]
        match word:
            case "iifname" | "oifname" | "l4proto":
                names.append("meta")
                if word != "l4proto" and after[0] == "!=" and after[1].startswith('"'):
                    names.append("cmp")
            case "saddr" | "daddr" | "dport":
                if after[0] != "type":
                    names.append("payload")
                if after[0] == "127.0.0.0/8":
                    names.append("cmp")
            case "ct":
                names += ["ct", "bitwise", "cmp"]
            case "fib":
                names += ["fib", "cmp"]
            case "masquerade":
                names.append("masq")
            case "drop" | "accept":
                names.append("immediate")
            case _ if word.startswith("@"):
                names.append("lookup")
    return [*names, "nat"] if "dnat" in words and "status" not in words else names


def test_elements_carry_key_data_and_comment() -> None:
    mapping = Mapping("udp", 5353, ip_address("10.1.0.2"), 53, ip_address("192.0.2.1"))
    element = compute_elements(Publish("ab" * 12, 4, (mapping,)))[0]
    raws = pack_element(LAYOUTS[4], element)
    message = nftables.add_elements(2, "netplug", "publish_ip", elements=raws, exclusive=True)[0]
    assert message.flags & netlink.NLM_F_EXCL
    item = decode(message).get_attr("NFTA_SET_ELEM_LIST_ELEMENTS")[0]
    key = item.get_attr("NFTA_SET_ELEM_KEY").get_attr("NFTA_DATA_VALUE")
    data = item.get_attr("NFTA_SET_ELEM_DATA").get_attr("NFTA_DATA_VALUE")
    assert _octets(key) == bytes.fromhex("c0000201 11000000 14e90000")
    assert _octets(data) == bytes.fromhex("0a010002 00350000")
    assert nftables._read_element(netlink.attributes(_listed(message))[1]).comment == (
        "netplug/" + "ab" * 12
    )


def _octets(value: Any) -> bytes:
    return value if isinstance(value, bytes) else bytes.fromhex(value.replace(":", ""))


def _listed(message: Message) -> bytes:
    return netlink.attributes(message.body)[3]


def test_many_elements_are_cut_into_messages_that_fit() -> None:
    mappings = tuple(Mapping("tcp", p, ip_address("fd00::2"), p) for p in range(1, 5001))
    elements = compute_elements(Publish("ab" * 12, 6, mappings))
    raws = [raw for element in elements for raw in pack_element(LAYOUTS[6], element)]
    messages = nftables.add_elements(10, "netplug", "publish_any", elements=raws)
    assert len(messages) == -(-5000 // nftables.ELEMENTS_PER_MESSAGE)
    assert all(len(_listed(message)) < 65535 for message in messages)
    found = [
        element
        for message in messages
        for element in nftables.read_elements(nfnetlink.Reply(message.kind, 10, message.body))
    ]
    assert found == raws


@pytest.mark.parametrize(
    ("subnet", "low", "beyond"),
    [
        ("10.1.0.0/24", "0a010000", "0a010100"),
        ("0.0.0.0/1", "00000000", "80000000"),
        ("fd00::/64", "fd00" + "00" * 14, "fd00000000000001" + "00" * 8),
    ],
)
def test_a_range_is_its_start_and_the_first_beyond(subnet: str, low: str, beyond: str) -> None:
    intent = Subnet(ip_network(subnet), "br0", masquerade=True)
    layout = LAYOUTS[intent.subnet.version]
    start, end = pack_element(layout, compute_elements(intent)[0])
    assert (start.key.hex(), end.key.hex()) == (low, beyond)
    assert end.flags == nftables.ELEM_INTERVAL_END


def test_a_range_up_to_the_last_address_has_no_end() -> None:
    intent = Subnet(ip_network("128.0.0.0/1"), "br0", masquerade=True)
    assert len(pack_element(LAYOUTS[4], compute_elements(intent)[0])) == 1


def test_attributes_survive_a_round_trip_and_short_input() -> None:
    packed = netlink.nest(3, netlink.text(1, "abc"), nfnetlink.number(2, -1))
    inner = netlink.attributes(packed)[3]
    assert netlink.attributes(inner) == {1: b"abc\0", 2: b"\xff" * 4}
    assert netlink.attributes(b"\0\0\0\0") == {}
    assert netlink.attributes(b"\1") == {}


def test_comments() -> None:
    userdata = nfnetlink.pack_comment("netplug/abc")
    assert userdata == b"\0\x0cnetplug/abc\0"
    assert nfnetlink.unpack_comment(b"\x4e\x02xx" + userdata) == "netplug/abc"
    assert nfnetlink.unpack_comment(b"") == ""


def test_a_refusal_tells_the_kernels_words() -> None:
    words = netlink.text(netlink.NLMSGERR_ATTR_MSG, "no such thing")
    body = struct.pack("=i", -2) + bytes(16) + words
    refusal = netlink.read_refusal(netlink.NLM_F_CAPPED | netlink.NLM_F_ACK_TLVS, body)
    assert refusal is not None
    assert (refusal.errno, refusal.words) == (2, "no such thing")
    assert netlink.read_refusal(0, struct.pack("=i", 0) + bytes(16)) is None


@pytest.mark.parametrize("surplus", range(5))
def test_a_refusal_brings_the_whole_request_padded(surplus: int) -> None:
    request = netlink.HEADER.pack(16 + surplus, 16, netlink.NLM_F_REQUEST, 7, 0) + b"x" * surplus
    copied = request + bytes(-surplus & 3)
    body = struct.pack("=i", -19) + copied + netlink.text(netlink.NLMSGERR_ATTR_MSG, "no device")
    refusal = netlink.read_refusal(netlink.NLM_F_ACK_TLVS, body)
    assert refusal is not None and (refusal.errno, refusal.words) == (19, "no device")
