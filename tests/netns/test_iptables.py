"""The iptables backend on the real legacy tables; `iptables-legacy-save` is the judge.

tests/golden/iptables holds what each intent makes of empty tables. After a change that is
meant, `NETPLUG_WRITE_GOLDEN=1 pytest tests/netns/test_iptables.py` writes them anew.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from conftest import Host

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
from netplug.firewall.iptables import IptablesFirewall, LegacyAccept, process, render_shell
from netplug.firewall.iptables.backend import LOCKFILE
from netplug.model import Attachment, Family, Protocol

GOLDEN = Path(__file__).parents[1] / "golden" / "iptables"
OWNER = Attachment("lan", "web", "eth0").tag
OTHER = Attachment("lan", "db", "eth0").tag
FAMILIES: tuple[Family, ...] = (4, 6)
ADDRESS = {4: "10.1.0.2", 6: "fd00:1::2"}
SUBNET = {4: "10.1.0.0/24", 6: "fd00:1::/64"}
HOST_IP = {4: "127.0.0.1", 6: "2001:db8::1"}


def mapping(
    family: Family, port: int, *, to: int = 80, protocol: Protocol = "tcp", on: str = ""
) -> Mapping:
    host_ip = ip_address(on) if on else None
    return Mapping(protocol, port, ip_address(ADDRESS[family]), to, host_ip)


def publish(family: Family, *ports: int, owner: str = OWNER, to: int = 80) -> Publish:
    return Publish(owner, family, tuple(mapping(family, port, to=to) for port in ports))


def intents(family: Family) -> dict[str, Intent]:
    subnet = ip_network(SUBNET[family])
    mappings = (
        mapping(family, 8080),
        mapping(family, 53, to=53, protocol="udp", on=HOST_IP[family]),
        mapping(family, 9, to=9, protocol="sctp"),
    )
    return {
        "base": Base(family),
        "policy": BridgePolicy("br0", family),
        "policy-internal": BridgePolicy("br0", family, internal=True),
        "policy-isolated": BridgePolicy("br0", family, isolated=True),
        "policy-isolated-routed": BridgePolicy("br0", family, isolated=True, routed=True),
        "policy-routed": BridgePolicy("br0", family, routed=True),
        "subnet": Subnet(subnet, "br0"),
        "subnet-masquerade": Subnet(subnet, "br0", masquerade=True),
        "accept": Accept("br0", family),
        "publish": Publish(OWNER, family, mappings),
    }


CASES = [
    pytest.param(family, name, intent, id=f"{name}-{family}")
    for family in FAMILIES
    for name, intent in intents(family).items()
]


def saved(host: Host, family: Family = 4) -> list[str]:
    """Chains and rules of ours and others, without counters, dates and empty built-in chains."""
    command = "iptables-legacy-save" if family == 4 else "ip6tables-legacy-save"
    lines = []
    table = ""
    for line in host.run(command).splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A") or (line.startswith(":") and " - " in line):
            lines.append(f"{table} {line.partition(' [')[0] if line[0] == ':' else line}")
    return lines


def loaded(host: Host) -> str:
    return host.run("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names")


@pytest.fixture
def firewall(host: Host) -> IptablesFirewall:
    return IptablesFirewall(host.fd)


@pytest.mark.parametrize(("family", "name", "intent"), CASES)
def test_an_intent_makes_its_golden_rules(
    host: Host, firewall: IptablesFirewall, family: Family, name: str, intent: Intent
) -> None:
    if name != "base":
        firewall.apply(Base(family))
    before = saved(host, family)
    assert firewall.present(intent) is None
    assert firewall.apply(intent) is True
    rules = saved(host, family)
    assert firewall.present(intent) == ""
    assert firewall.apply(intent) is False
    assert saved(host, family) == rules

    made = [line for line in rules if line not in before]
    golden = GOLDEN / f"{name}-{family}.rules"
    if os.environ.get("NETPLUG_WRITE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text("\n".join(made) + "\n")
    assert made == golden.read_text().splitlines()

    firewall.undo(intent)
    assert firewall.present(intent) is None
    assert saved(host, family) == before
    firewall.undo(intent)
    firewall.undo(Base(family))
    assert saved(host, family) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_typed_commands_make_the_same_rules(
    make_host: Callable[[str], Host], family: Family
) -> None:
    """To the byte: `present` compares what the kernel holds, interface masks included."""
    applied, typed = make_host("applied"), make_host("typed")
    firewall, judge = IptablesFirewall(applied.fd), IptablesFirewall(typed.fd)
    wanted = intents(family)
    chosen = [wanted[n] for n in ("base", "policy", "subnet-masquerade", "accept", "publish")]
    chosen += [
        BridgePolicy("br1", family, internal=True),
        BridgePolicy("br2", family, isolated=True),
        BridgePolicy("br3", family, isolated=True, routed=True),
        BridgePolicy("a-long-bridge-n", family, routed=True),
    ]
    for intent in chosen:
        firewall.apply(intent)
        for command in render_shell(intent):
            typed.run(command)
    assert saved(applied, family) == saved(typed, family)
    for intent in chosen:
        assert judge.present(intent) == ""
        assert judge.apply(intent) is False


def test_one_bridge_is_not_taken_for_another_in_ipv6(
    host: Host, firewall: IptablesFirewall
) -> None:
    """python-iptables masks interface names with 01: br0 and br2 would be the same."""
    for intent in (Base(6), BridgePolicy("br0", 6, internal=True)):
        firewall.apply(intent)
    host.run("ip link add br2 type bridge && ip link add br4 type bridge")
    host.run("ip -6 addr add fd02::1/64 dev br2 nodad && ip -6 addr add fd04::1/64 dev br4 nodad")
    host.run("sysctl -qw net.ipv6.conf.all.forwarding=1")
    sender, receiver = host.container("sender"), host.container("receiver")
    for part, bridge, net in ((sender, "br2", "fd02"), (receiver, "br4", "fd04")):
        host.run(f"ip link add v{bridge} type veth peer name eth0 netns {part.name}")
        host.run(f"ip link set v{bridge} master {bridge} up && ip link set {bridge} up")
        part.run(f"ip -6 addr add {net}::2/64 dev eth0 nodad && ip link set eth0 up")
        part.run(f"ip -6 route add default via {net}::1")
    sender.run("ping -6 -c 1 -w 5 fd04::2")


def test_nothing_is_loaded_by_looking(host: Host, firewall: IptablesFirewall) -> None:
    for intent in (*intents(4).values(), *intents(6).values()):
        assert firewall.present(intent) is None
        firewall.undo(intent)
    assert firewall.owners() == set()
    assert firewall.remove_owned(OWNER) == 0
    LegacyAccept(host.fd).undo(Accept("br0", 4))
    assert loaded(host) == ""


def test_only_the_tables_in_use_are_loaded(host: Host, firewall: IptablesFirewall) -> None:
    firewall.apply(Base(6))
    assert sorted(loaded(host).split()) == ["filter", "nat"]


def test_the_parent_never_loads_python_iptables(firewall: IptablesFirewall) -> None:
    firewall.apply(Base(4))
    assert "iptc" not in sys.modules


def test_frames_of_a_bridge_are_refused(firewall: IptablesFirewall) -> None:
    guard = SpoofGuard(OWNER, "veth0", "02:00:00:00:00:01")
    for intent in (guard, Base("bridge")):
        with pytest.raises(UnsupportedError, match="macspoofchk"):
            firewall.apply(intent)
        firewall.undo(intent)


# -- owners and conflicts ------------------------------------------------------------------


def test_owners_lose_exactly_their_rules(host: Host, firewall: IptablesFirewall) -> None:
    for family in FAMILIES:
        firewall.apply(Base(family))
        firewall.apply(publish(family, 8080, 8081))
        firewall.apply(publish(family, 9090, owner=OTHER))
    assert firewall.owners() == {OWNER, OTHER}
    assert firewall.remove_owned(OWNER) == 4
    assert firewall.owners() == {OTHER}
    for family in FAMILIES:
        assert firewall.present(publish(family, 8080, 8081)) is None
        assert firewall.present(publish(family, 9090, owner=OTHER)) == ""


def test_a_taken_port_is_a_conflict_that_changes_nothing(
    host: Host, firewall: IptablesFirewall
) -> None:
    firewall.apply(Base(4))
    firewall.apply(publish(4, 8080))
    before = saved(host)
    with pytest.raises(Conflict, match=f"8080/tcp is published already.*{OWNER}"):
        firewall.apply(publish(4, *range(9000, 9010), 8080, owner=OTHER))
    assert saved(host) == before
    other = Publish(OTHER, 4, (mapping(4, 8080, protocol="udp"), mapping(4, 8080, on="127.0.0.1")))
    assert firewall.apply(other)  # another protocol, and an address of its own


def test_an_attachment_may_move_its_port(host: Host, firewall: IptablesFirewall) -> None:
    firewall.apply(Base(4))
    firewall.apply(publish(4, 8080, to=80))
    moved = publish(4, 8080, to=81)
    assert "wrong" in (firewall.present(moved) or "")
    assert firewall.apply(moved)
    assert firewall.present(moved) == ""
    assert sum("--dport 8080" in line for line in saved(host)) == 1


def test_overlapping_subnets_need_one_bridge(firewall: IptablesFirewall) -> None:
    firewall.apply(Base(4))
    firewall.apply(Subnet(ip_network("10.1.0.0/16"), "br0", masquerade=True))
    with pytest.raises(Conflict, match=r"10\.1\.2\.0/24 of bridge br1 overlaps 10\.1\.0\.0/16"):
        firewall.apply(Subnet(ip_network("10.1.2.0/24"), "br1"))
    assert firewall.apply(Subnet(ip_network("10.1.2.0/24"), "br0"))


def test_a_policy_is_replaced_as_a_whole(host: Host, firewall: IptablesFirewall) -> None:
    firewall.apply(Base(4))
    firewall.apply(BridgePolicy("br0", 4))
    strict = BridgePolicy("br0", 4, internal=True)
    assert firewall.present(strict) not in (None, "")
    firewall.apply(strict)
    assert firewall.present(strict) == ""
    firewall.undo(strict)
    assert not any("br0" in line for line in saved(host))


def test_a_hundred_ports_come_and_go(host: Host, firewall: IptablesFirewall) -> None:
    firewall.apply(Base(4))
    before = saved(host)
    many = publish(4, *range(20000, 20100))
    assert firewall.apply(many)
    assert firewall.present(many) == ""
    assert sum("--dport" in line for line in saved(host)) == 100
    firewall.undo(many)
    assert saved(host) == before


# -- others in the same tables ---------------------------------------------------------------


def test_rules_of_others_stay(host: Host, firewall: IptablesFirewall) -> None:
    foreign = [
        "iptables-legacy -t nat -A PREROUTING -p tcp --dport 22 -j ACCEPT",
        "iptables-legacy -A FORWARD -m comment --comment 'netplugged, \"by hand\"' -j LOG",
        "iptables-legacy -N MINE",
        "iptables-legacy -A MINE -s 192.0.2.0/24 -j REJECT",
    ]
    for command in foreign:
        host.run(command)
    before = saved(host)
    wanted = intents(4)
    chosen = [wanted[n] for n in ("base", "policy", "subnet-masquerade", "accept", "publish")]
    for intent in chosen:
        firewall.apply(intent)
    for intent in reversed(chosen):
        firewall.undo(intent)
    assert saved(host) == before


def test_a_flush_is_noticed_and_repaired(host: Host, firewall: IptablesFirewall) -> None:
    firewall.apply(Base(4))
    rules = saved(host)
    host.run("iptables-legacy -F && iptables-legacy -t nat -D POSTROUTING -j NETPLUG-POST"
             " -m comment --comment netplug")  # fmt: skip
    words = firewall.present(Base(4)) or ""
    assert "missing rule -t filter -I FORWARD" in words
    assert "missing rule -t nat -A POSTROUTING" in words
    assert firewall.apply(Base(4))
    assert firewall.present(Base(4)) == ""
    assert sorted(saved(host)) == sorted(rules)


def test_chains_that_are_gone_are_named(host: Host, firewall: IptablesFirewall) -> None:
    firewall.apply(Base(4))
    host.run("iptables-legacy -F && iptables-legacy -X NETPLUG-OUTSIDE")
    assert "missing chain NETPLUG-OUTSIDE of table filter" in (firewall.present(Base(4)) or "")
    with pytest.raises(KernelRefused, match=r"NETPLUG-OUTSIDE.*missing") as caught:
        firewall.apply(BridgePolicy("br0", 4))
    assert "repair" in caught.value.hint
    firewall.apply(Base(4))
    assert firewall.apply(BridgePolicy("br0", 4))


def test_an_accept_before_our_policy_is_noticed(host: Host, firewall: IptablesFirewall) -> None:
    firewall.apply(Base(4))
    host.run("iptables-legacy -I FORWARD -j LOG")
    assert firewall.present(Base(4)) == ""
    host.run("iptables-legacy -I FORWARD -i eth9 -j ACCEPT")
    assert "wrong rules in FORWARD" in (firewall.present(Base(4)) or "")
    assert firewall.apply(Base(4))
    assert firewall.present(Base(4)) == ""
    forward = [line for line in saved(host) if "-A FORWARD" in line]
    assert forward[0].endswith("-j NETPLUG-FORWARD")
    assert len(forward) == 3


def test_a_chain_in_foreign_use_stays_empty(host: Host, firewall: IptablesFirewall) -> None:
    firewall.apply(Base(4))
    host.run("iptables-legacy -t nat -A OUTPUT -d 192.0.2.1 -j NETPLUG-DNAT")
    firewall.undo(Base(4))
    assert saved(host) == [
        "nat :NETPLUG-DNAT -",
        "nat -A OUTPUT -d 192.0.2.1/32 -j NETPLUG-DNAT",
    ]


def test_accepts_go_where_docker_wants_them(host: Host, firewall: IptablesFirewall) -> None:
    firewall.apply(Base(4))
    host.run("iptables-legacy -N DOCKER-USER")
    accept = Accept("br0", 4)
    firewall.apply(accept)  # nothing leads to DOCKER-USER: a left-over of Docker
    assert any("-A FORWARD -i br0" in line for line in saved(host))
    host.run("iptables-legacy -A FORWARD -j DOCKER-USER")
    assert firewall.present(accept) == ""
    firewall.undo(accept)
    firewall.apply(accept)
    assert firewall.present(accept) == ""
    assert any("-A DOCKER-USER -i br0" in line for line in saved(host))
    assert not any("-A FORWARD -i br0" in line for line in saved(host))
    firewall.undo(Base(4))
    assert saved(host) == ["filter :DOCKER-USER -", "filter -A FORWARD -j DOCKER-USER"]


@pytest.mark.parametrize("family", FAMILIES)
def test_accepts_in_aid_of_another_backend(host: Host, family: Family) -> None:
    accept, other = Accept("br0", family), LegacyAccept(host.fd)
    assert other.present(accept) == ""
    assert other.apply(accept) is False
    assert loaded(host) == ""
    host.run(f"ip{'' if family == 4 else '6'}tables-legacy -P FORWARD DROP")
    assert other.present(accept) is None
    assert other.apply(accept) is True
    assert other.apply(accept) is False
    assert other.present(accept) == ""
    assert any(line.endswith("-j ACCEPT") and "-o br0" in line for line in saved(host, family))
    firewall = IptablesFirewall(host.fd)
    firewall.apply(Base(family))
    assert firewall.present(Base(family)) == ""
    firewall.undo(Base(family))
    assert other.present(accept) == ""  # another backend's: not of the frame
    other.undo(accept)
    assert other.present(accept) is None
    assert saved(host, family) == []


def test_drops_that_this_backend_cannot_open_are_told(
    host: Host, firewall: IptablesFirewall
) -> None:
    host.run("iptables-legacy -P FORWARD DROP")
    assert firewall.foreign_drops() == []
    host.run("nft 'add table inet fw; add chain inet fw forward"
             " { type filter hook forward priority 0; policy drop; }'")  # fmt: skip
    (words,) = firewall.foreign_drops()
    assert "chain forward of the nf_tables table fw" in words


# -- the lock, and failures ------------------------------------------------------------------


@contextmanager
def held(path: str) -> Iterator[None]:
    create = 0 if os.path.exists(path) else os.O_CREAT
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | create, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def test_a_held_lock_is_waited_for(host: Host, firewall: IptablesFirewall) -> None:
    impatient = IptablesFirewall(host.fd, patience=0.2)
    with ThreadPoolExecutor() as pool:
        with held(LOCKFILE):
            waiting = pool.submit(firewall.apply, Base(4))
            assert impatient.present(Base(4)) is None  # reading needs no lock
            with pytest.raises(Busy, match=LOCKFILE):
                impatient.apply(Base(4))
            assert saved(host) == []
        assert waiting.result() is True
    assert firewall.present(Base(4)) == ""


def test_a_lock_that_cannot_be_made_is_replaced_by_the_namespace(
    make_host: Callable[[str], Host],
) -> None:
    host, other = make_host("host"), make_host("other")
    nowhere = "/run/no-such-folder/xtables.lock"
    firewall = IptablesFirewall(host.fd, lockfile=nowhere, patience=0.2)
    with held(host.path):
        with pytest.raises(Busy, match="/proc/self/ns/net"):
            firewall.apply(Base(4))
        assert IptablesFirewall(other.fd, lockfile=nowhere).apply(Base(4))
    assert firewall.apply(Base(4))


def test_iptables_beside_us_loses_nothing(host: Host, firewall: IptablesFirewall) -> None:
    firewall.apply(Base(4))
    typing = host.start(
        "for n in $(seq 150); do"
        " iptables-legacy -w -t nat -A NETPLUG-DNAT -p udp --dport $n -j RETURN || exit 1; done"
    )
    ports = range(8000, 8008)
    owners = {port: f"{port:024x}" for port in ports}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda port: firewall.apply(publish(4, port, owner=owners[port])), ports))
    assert typing.wait() == 0
    lines = saved(host)
    assert sum("-j RETURN" in line and "udp" in line for line in lines) == 150
    assert firewall.owners() == set(owners.values())
    assert sum("-j DNAT" in line for line in lines) == len(ports)


def test_two_children_that_want_one_port(host: Host, firewall: IptablesFirewall) -> None:
    firewall.apply(Base(4))

    def claim(owner: str) -> bool:
        try:
            return firewall.apply(publish(4, 8080, owner=owner))
        except Conflict:
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(claim, (OWNER, OTHER))) == [False, True]
    assert len(firewall.owners()) == 1


CHILD = "from netplug.firewall.iptables.child import main; main()"
FAULT = f"""
import sys; sys.path.append(sys.argv[1])
from netplug.errors import KernelRefused
from netplug.firewall.iptables.tables import LegacyTable
commit = LegacyTable.commit
def refuse(self):
    if self.name == "TABLE":
        raise KernelRefused("injected")
    commit(self)
LegacyTable.commit = refuse
{CHILD}
"""


@pytest.mark.parametrize("table", ["raw", "nat", "filter"])
def test_a_failure_midway_leaves_nothing(
    host: Host, firewall: IptablesFirewall, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    host.run("iptables-legacy -t nat -A PREROUTING -p tcp --dport 22 -j ACCEPT")
    before = saved(host)
    with monkeypatch.context() as patch:
        patch.setattr(process, "_BOOT", FAULT.replace("TABLE", table))
        with pytest.raises(KernelRefused, match="injected"):
            firewall.apply(Base(4))
    assert saved(host) == before
    assert firewall.apply(Base(4))


def test_a_lost_race_with_a_tool_that_takes_no_lock_is_run_again(
    host: Host, firewall: IptablesFirewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel answers EAGAIN where the number of rules is not what the caller read."""
    firewall.apply(Base(4))
    racing = f"""
import sys, subprocess; sys.path.append(sys.argv[1])
from netplug.firewall.iptables.tables import LegacyTable
commit, raced = LegacyTable.commit, []
def race(self):
    if not raced:
        raced.append(subprocess.run(
            "XTABLES_LOCKFILE=/run/other.lock iptables-legacy -t nat -A OUTPUT -j RETURN;"
            "rm /run/other.lock", shell=True, check=True))
    commit(self)
LegacyTable.commit = race
{CHILD}
"""
    monkeypatch.setattr(process, "_BOOT", racing)
    assert firewall.apply(publish(4, 8080))
    lines = saved(host)
    assert "nat -A OUTPUT -j RETURN" in lines
    assert any("--dport 8080" in line for line in lines)


def test_without_python_iptables_the_remedy_is_named(
    firewall: IptablesFirewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = f"import sys; sys.path.append(sys.argv[1]); sys.modules['iptc'] = None; {CHILD}"
    monkeypatch.setattr(process, "_BOOT", missing)
    with pytest.raises(UnsupportedError, match="python-iptables cannot be loaded") as caught:
        firewall.apply(Base(4))
    assert "nft" in caught.value.hint


def test_without_the_right_the_user_is_told(host: Host) -> None:
    """A child without CAP_NET_ADMIN, CAP_NET_RAW: as a user who is not root."""
    done = host.run(
        f"setpriv --bounding-set=-net_admin,-net_raw --inh-caps=-all {sys.executable} -c '"
        "import os\n"
        "from netplug.errors import PermissionRefused\n"
        "from netplug.firewall.intent import Base\n"
        "from netplug.firewall.iptables import IptablesFirewall\n"
        "from netplug.firewall.iptables import process\n"
        "process._in_namespace = lambda fd, work: work()\n"
        "try: IptablesFirewall(0).apply(Base(4))\n"
        "except PermissionRefused as error: print(error, error.hint)'"
    )
    assert "Permission denied" in done
    assert "root" in done
