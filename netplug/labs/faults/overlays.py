"""Faults of a VXLAN overlay. `make` rebuilds the tunnel: it takes VNI, port and local address."""

from netplug.labs.faults.base import FaultKind

OVERLAYS = (
    FaultKind(
        "vxlan_mtu",
        "mtu",
        breaks="ip link set {dev} mtu 1500; ip -n {peer} link set {dev} mtu 1500",
        mends="ip link set {dev} mtu {mtu}; ip -n {peer} link set {dev} mtu {mtu}",
        evidence={"link": {"node": "{node}", "name": "{dev}", "mtu": "{mtu}"}},
        symptom="small packets pass the overlay, large ones go in pieces, are slow or lost",
        cause="full packets do not fit into the tunnel's, and are cut in pieces",
        remedy="ip link set {dev} mtu {mtu}, in {node} and {peer}",
        defaults={"mtu": "1450"},
    ),
    FaultKind(
        "missing_fdb",
        "overlay",
        breaks="bridge fdb del {mac} dev {dev} dst {remote}",
        mends="bridge fdb append {mac} dev {dev} dst {remote}",
        evidence={"fdb": {"node": "{node}", "dev": "{dev}", "mac": "{mac}", "remote": "{remote}"}},
        symptom="ARP is answered, and still no packet arrives at one container",
        cause="{node} does not know on which machine that container's MAC lives",
        remedy="bridge fdb append {mac} dev {dev} dst {remote}, in {node}",
    ),
    FaultKind(
        "missing_neighbour",
        "overlay",
        breaks="ip neigh del {address} dev {bridge}\nip -n {asker} neigh flush all",
        mends="ip neigh replace {address} lladdr {mac} dev {bridge} nud permanent",
        evidence={
            "neigh": {"node": "{node}", "address": "{address}", "mac": "{mac}", "permanent": True}
        },
        symptom="one container cannot be found by ARP, from the other machine only",
        cause="the bridge of {node} answers ARP by its own table, and the entry is missing there",
        remedy="ip neigh replace {address} lladdr {mac} dev {bridge} nud permanent, in {node}",
    ),
    FaultKind(
        "stale_mac",
        "overlay",
        breaks="ip neigh replace {address} lladdr {wrong} dev {bridge} nud permanent\n"
        "ip -n {asker} neigh flush all",
        mends="ip neigh replace {address} lladdr {mac} dev {bridge} nud permanent\n"
        "ip -n {asker} neigh flush all",
        evidence={"neigh": {"node": "{node}", "address": "{address}", "mac": "{mac}"}},
        symptom="after a container was made anew, the other machine does not reach it",
        cause="{node} still tells its old MAC to who asks",
        remedy="ip neigh replace {address} lladdr {mac} dev {bridge} nud permanent, in {node}",
    ),
    FaultKind(
        "vni_mismatch",
        "overlay",
        breaks="{make} {wrong} {port} {local}",
        mends="{make} {vni} {port} {local}",
        evidence={"link": {"node": "{node}", "name": "{dev}", "vni": "{vni}"}},
        symptom="tunnel packets arrive at the other machine, and nothing comes out",
        cause="the two ends use different VNIs; unknown ones are dropped without a word",
        remedy="make {dev} in {node} with id {vni}",
        defaults={"port": "4789"},
    ),
    FaultKind(
        "port_mismatch",
        "overlay",
        breaks="{make} {vni} {wrong} {local}",
        mends="{make} {vni} {port} {local}",
        evidence={"link": {"node": "{node}", "name": "{dev}", "port": "{port}"}},
        symptom="tunnel packets are answered by: port unreachable",
        cause="one end uses another UDP port; Linux takes 8472 unless dstport is given",
        remedy="make {dev} in {node} with dstport {port}",
        defaults={"port": "4789", "wrong": "8472"},
    ),
    FaultKind(
        "wrong_local",
        "overlay",
        breaks="{make} {vni} {port} {wrong}",
        mends="{make} {vni} {port} {local}",
        evidence={"link": {"node": "{node}", "name": "{dev}", "local": "{local}"}},
        symptom="nothing leaves the tunnel at all, on one machine",
        cause="its local address is one that the machine does not have",
        remedy="make {dev} in {node} with local {local}",
        defaults={"port": "4789"},
    ),
)
