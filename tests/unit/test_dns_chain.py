"""The keys of plugin `dnsname`, and what a named namespace's resolv.conf says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netplug import resolver_files
from netplug.cli.dns import candidates, reverse_of
from netplug.cni.naming import parse_chained_names, parse_names, render_names
from netplug.errors import ConfigError
from netplug.model import Attachment, Dns, Names
from netplug.state import State


@pytest.mark.parametrize(
    ("config", "before", "wanted"),
    [
        ({}, (), Names()),
        ({"domainName": "dns.podman"}, ("192.0.2.1", "x"),
         Names(domain="dns.podman", upstreams=("192.0.2.1",))),
        ({"DomainName": "a.b", "remoteServers": ["::1"], "multiDomain": True}, ("192.0.2.1",),
         Names(domain="a.b", upstreams=("::1",))),
        ({"domainName": "a", "names": {"domain": "b", "ttl": 9}}, (), Names(domain="b", ttl=9)),
        ({"names": True}, (), Names()),
    ],
)  # fmt: skip
def test_keys_of_dnsname(config: dict[str, Any], before: tuple[str, ...], wanted: Names) -> None:
    found, unknown = parse_chained_names(config, before)
    assert found == wanted and not unknown
    assert parse_names({"names": render_names(found)}) == (wanted, [])


@pytest.mark.parametrize(
    "config", [{"domainName": "a b"}, {"domainName": 1}, {"remoteServers": ["x"]}, {"names": 7}]
)
def test_wrong_keys_of_dnsname(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        parse_chained_names(config, ())


def test_owners_beside_each_other() -> None:
    main = Attachment("lan", "c1", "eth0")
    names = Attachment("lan", "c1", "eth0", via="names")
    assert names.owner == f"{main.owner}/names"
    assert len({main.tag, names.tag}) == len({main.host_name, names.host_name}) == 2


def test_a_resolv_conf_of_several_networks(tmp_path: Path) -> None:
    state = State(tmp_path)
    first = Dns(nameservers=("10.1.0.1", "::1"), search=("lan.internal", "corp"))
    second = Dns(nameservers=("10.2.0.1", "10.1.0.1"), search=("corp",), options=("ndots:2",))
    assert resolver_files.render(state, [first, second, Dns(search=("unheard",))]).splitlines() == [
        f"{resolver_files.MARK}{tmp_path}",
        "nameserver 10.1.0.1",
        "nameserver ::1",
        "nameserver 10.2.0.1",
        "search lan.internal corp",
        "options ndots:2",
    ]
    assert resolver_files.render(state, [Dns(search=("x",))]) == ""
    state.close()


def test_names_are_tried_as_a_resolver_would() -> None:
    dns = Dns(search=("lan.internal", "corp"))
    assert candidates("web", dns) == ["web.lan.internal", "web.corp", "web"]
    assert candidates("web.lan", dns) == ["web.lan", "web.lan.lan.internal", "web.lan.corp"]
    assert candidates("web.", dns) == ["web"]
    assert reverse_of("10.1.0.2", "A") == ("2.0.1.10.in-addr.arpa.", "PTR")
    assert reverse_of("web", "aaaa") == ("web", "AAAA")
