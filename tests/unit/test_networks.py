"""What `netplug network create` writes for each kind of network."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from netplug.cli.network import _parse_options
from netplug.errors import ConfigError
from netplug.networks import NewNetwork, compute_conflist

V4, V6 = ip_network("192.0.2.0/24"), ip_network("2001:db8::/64")


def plugin_of(**said: Any) -> dict[str, Any]:
    found: dict[str, Any] = compute_conflist(NewNetwork("lan", **said))["plugins"][0]
    return found


def test_a_lan_with_its_router() -> None:
    plugin = plugin_of(
        driver="macvlan",
        subnets=(V4, V6),
        gateways=("192.0.2.1",),
        options=(("master", "eth1"), ("hostAccess", True)),
    )
    assert (plugin["driver"], plugin["master"], plugin["hostAccess"]) == ("macvlan", "eth1", True)
    assert plugin["ipam"]["ranges"] == [
        [{"subnet": "192.0.2.0/24", "gateway": "192.0.2.1"}],
        [{"subnet": "2001:db8::/64"}],
    ]
    assert plugin["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}], "IPv6 has no router here"
    assert "isDefaultGateway" not in plugin


def test_a_lan_without_a_router_has_no_default_route() -> None:
    assert "routes" not in plugin_of(driver="macvlan", subnets=(V4,))["ipam"]
    assert "ipam" not in plugin_of(driver="macvlan")


def test_cables_lead_out() -> None:
    plugin = plugin_of(driver="ptp", subnets=(V4, V6))
    assert plugin["ipMasq"] is True
    assert [route["dst"] for route in plugin["ipam"]["routes"]] == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize("driver", ["macvlan", "bridge"])
def test_a_dhcp_server_gives_all(driver: str) -> None:
    plugin = plugin_of(driver=driver, dhcp=True)
    assert plugin["ipam"] == {"type": "netplug-dhcp"}
    assert not plugin.get("isDefaultGateway") and not plugin.get("ipMasq")
    with pytest.raises(ConfigError, match="exclude each other"):
        plugin_of(driver=driver, dhcp=True, subnets=(V4,))


def test_options_of_the_command_line() -> None:
    found = _parse_options(["a=true", "b=7", "c=x", 'd=["02:00:00:00:00:01"]', 'e={"x": 1}'])
    assert found == {"a": True, "b": 7, "c": "x", "d": ["02:00:00:00:00:01"], "e": {"x": 1}}
    with pytest.raises(ConfigError, match="is wrong"):
        _parse_options(["a=[1"])
    with pytest.raises(ConfigError, match="mastre"):
        plugin_of(driver="macvlan", options=(("mastre", "eth1"),))
