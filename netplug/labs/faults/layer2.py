"""Faults of links, bridges and frames."""

from netplug.labs.faults.base import FaultKind

LAYER2 = (
    FaultKind(
        "port_down",
        "link",
        breaks="ip link set {dev} down",
        mends="ip link set {dev} up",
        evidence={"link": {"node": "{node}", "name": "{dev}", "up": True}},
        symptom="one machine is cut off; its own link is up, but says NO-CARRIER",
        cause="the other end of its cable, a port of the switch, is down",
        remedy="ip link set {dev} up, in {node}",
    ),
    FaultKind(
        "not_enslaved",
        "link",
        breaks="ip link set {dev} nomaster",
        mends="ip link set {dev} master {bridge}",
        evidence={"port": {"node": "{node}", "bridge": "{bridge}", "links": ["{dev}"]}},
        symptom="every link is up, and yet one machine reaches nobody on its switch",
        cause="its cable ends in {node}, but is no port of the bridge",
        remedy="ip link set {dev} master {bridge}, in {node}",
    ),
    FaultKind(
        "isolated_port",
        "link",
        breaks="bridge link set dev {dev} isolated on; bridge link set dev {other} isolated on",
        mends="bridge link set dev {dev} isolated off; bridge link set dev {other} isolated off",
        evidence={"port": {"node": "{node}", "bridge": "{bridge}", "links": ["{dev}"]}},
        symptom="two machines reach the router and not each other",
        cause="both their ports are isolated: such ports exchange no frames",
        remedy="bridge link set dev {dev} isolated off, in {node}",
    ),
    FaultKind(
        "stp_delay",
        "link",
        breaks="ip link set {bridge} type bridge stp_state 1 forward_delay 3000\n"
        "ip link set {dev} down; ip link set {dev} up",
        mends="ip link set {bridge} type bridge stp_state 0 forward_delay 1500\n"
        "ip link set {dev} down; ip link set {dev} up",
        evidence={"link": {"node": "{node}", "name": "{bridge}", "stp": False}},
        symptom="after a cable was plugged in, nothing passes for half a minute",
        cause="the spanning tree lets a new port listen and learn before it forwards",
        remedy="ip link set {bridge} type bridge stp_state 0, in {node}; or wait",
    ),
    FaultKind(
        "duplicate_mac",
        "link",
        breaks="ip -n {node} link set {dev} address {mac}",
        mends="ip -n {node} link set {dev} address {own}\n"
        "for name in {peers}; do ip -n $name neigh flush all; done",
        evidence={"link": {"node": "{node}", "name": "{dev}", "mac": "{own}"}},
        symptom="two machines lose packets in turns, and never reach each other",
        cause="both have the same MAC; the switch believes whom it heard last",
        remedy="give {node} a MAC of its own: ip link set {dev} address ...",
        where="host",
    ),
    FaultKind(
        "stale_fdb",
        "link",
        breaks="bridge fdb replace {mac} dev {dev} master static sticky",
        mends="bridge fdb del {mac} dev {dev} master",
        evidence={"fdb": {"node": "{node}", "dev": "{dev}", "mac": "{mac}", "exists": False}},
        symptom="frames for one machine vanish, though ARP for it is answered",
        cause="a static forwarding entry sends its frames to a port behind which it does not live",
        remedy="bridge fdb del {mac} dev {dev} master, in {node}",
    ),
    FaultKind(
        "bridge_filter",
        "link",
        breaks="nft add table bridge fault\n"
        "nft add chain bridge fault forward '{ type filter hook forward priority 0; }'\n"
        "nft add rule bridge fault forward iifname {dev} ether type arp drop\n"
        "ip -n {asker} neigh flush all",
        mends="nft delete table bridge fault",
        evidence={"ruleset": {"node": "{node}", "has": "ether type arp drop", "exists": False}},
        symptom="a machine finds no neighbour; ARP questions leave and are never answered",
        cause="the bridge itself filters frames: a firewall table of the family bridge",
        remedy="nft list ruleset in {node}, then nft delete table bridge fault",
        needs=("nft-bridge",),
    ),
    FaultKind(
        "macvlan_private",
        "link",
        breaks="ip link set {dev} type macvlan mode private",
        mends="ip link set {dev} type macvlan mode bridge",
        evidence={"link": {"node": "{node}", "name": "{dev}", "mode": "bridge"}},
        symptom="two macvlans of one parent reach the world and not each other",
        cause="mode private keeps macvlans of one parent apart",
        remedy="ip link set {dev} type macvlan mode bridge, in {node}",
    ),
)
