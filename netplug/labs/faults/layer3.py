"""Faults of addresses, routes and forwarding."""

from netplug.labs.faults.base import FaultKind

LAYER3 = (
    FaultKind(
        "wrong_prefix",
        "route",
        breaks="ip address del {address}/{prefix} dev {dev}\n"
        "ip address add {address}/{wrong} dev {dev}\n"
        "ip route replace default via {gateway}",
        mends="ip address del {address}/{wrong} dev {dev}\n"
        "ip address add {address}/{prefix} dev {dev}\n"
        "ip route replace default via {gateway}",
        evidence={"addr": {"node": "{node}", "dev": "{dev}", "address": "{address}/{prefix}"}},
        symptom="a machine reaches its own subnet and not the next one",
        cause="with the prefix /{wrong} it takes the next subnet for its own, and asks by ARP",
        remedy="give {dev} in {node} the address with /{prefix}",
    ),
    FaultKind(
        "no_gateway",
        "route",
        breaks="ip route del default",
        mends="ip route add default via {gateway}",
        evidence={"route": {"node": "{node}", "to": "default"}},
        symptom="Network is unreachable, for all but the own subnet",
        cause="{node} has no default route",
        remedy="ip route add default via {gateway}, in {node}",
    ),
    FaultKind(
        "wrong_gateway",
        "route",
        breaks="ip route replace default via {wrong}",
        mends="ip route replace default via {gateway}",
        evidence={"route": {"node": "{node}", "to": "default", "via": "{gateway}"}},
        symptom="a machine reaches its own subnet; all else is silent",
        cause="its default route goes to somebody who is no router, or is not there",
        remedy="ip route replace default via {gateway}, in {node}",
    ),
    FaultKind(
        "duplicate_ip",
        "route",
        breaks="ip -n {node} address add {address}/{prefix} dev {dev}\n"
        "ip -n {victim} neigh replace {address} lladdr {mac} dev {via} nud reachable",
        mends="ip -n {node} address del {address}/{prefix} dev {dev}\n"
        "ip -n {victim} neigh flush all",
        evidence={"addr": {"node": "{node}", "address": "{address}/{prefix}", "exists": False}},
        symptom="connections to one machine are refused or hang, ping works",
        cause="a second machine, {node}, has its address, and answered first",
        remedy="take {address} from {node}, and flush the neighbour tables of others",
        where="host",
    ),
    FaultKind(
        "forwarding_off",
        "route",
        breaks="sysctl -qw net.ipv4.ip_forward=0",
        mends="sysctl -qw net.ipv4.ip_forward=1",
        evidence={"sysctl": {"node": "{node}", "key": "net.ipv4.ip_forward", "value": "1"}},
        symptom="everybody reaches the router, and nobody gets past it",
        cause="the router does not forward",
        remedy="sysctl -w net.ipv4.ip_forward=1, in {node}",
    ),
    FaultKind(
        "strict_rp_filter",
        "route",
        breaks="sysctl -qw net.ipv4.conf.all.rp_filter=1",
        mends="sysctl -qw net.ipv4.conf.all.rp_filter=0",
        evidence={"sysctl": {"node": "{node}", "key": "net.ipv4.conf.all.rp_filter", "value": "0"}},
        symptom="a machine with two links does not answer on one of them; packets arrive there",
        cause="the answer would leave through the other link, and the strict filter then drops",
        remedy="sysctl -w net.ipv4.conf.all.rp_filter=0 (or 2, loose), in {node}",
    ),
    FaultKind(
        "blackhole_route",
        "route",
        breaks="ip route add blackhole {to}",
        mends="ip route del blackhole {to}",
        evidence={"route": {"node": "{node}", "to": "{to}", "kind": "blackhole", "exists": False}},
        symptom="one destination is unreachable, its neighbours are not; Invalid argument",
        cause="a blackhole route for it, more specific than the right one",
        remedy="ip route del blackhole {to}, in {node}",
    ),
    FaultKind(
        "subnet_overlap",
        "route",
        breaks="ip link add {dev} type bridge; ip link set {dev} up\n"
        "ip address add {address} dev {dev}",
        mends="ip link del {dev}",
        evidence={"link": {"node": "{node}", "name": "{dev}", "exists": False}},
        symptom="since another network was set up, part of a subnet is unreachable",
        cause="{dev} in {node} has a subnet that overlaps it, and the longer prefix wins",
        remedy="give {dev} another subnet, or remove it: ip link del {dev}",
    ),
    FaultKind(
        "lo_down",
        "route",
        breaks="ip link set lo down",
        mends="ip link set lo up",
        evidence={"link": {"node": "{node}", "name": "lo", "up": True}},
        symptom="programs in one container cannot talk to localhost",
        cause="its loopback link is down",
        remedy="ip link set lo up, in {node}",
    ),
    FaultKind(
        "policy_rule",
        "route",
        breaks="ip rule add to {to} prohibit priority 100",
        mends="ip rule del to {to} prohibit priority 100",
        evidence={"rule": {"node": "{node}", "to": "{to}", "action": "prohibit", "exists": False}},
        symptom="the routes are right, and still: Permission denied, or No route to host",
        cause="a policy rule is asked before any route",
        remedy="ip rule, then ip rule del to {to}, in {node}",
    ),
)
