"""Faults of names and of bandwidth."""

from netplug.labs.faults.base import FaultKind

SERVICES = (
    FaultKind(
        "wrong_resolver",
        "dns",
        breaks="sed -i 's/^nameserver .*/nameserver {wrong}/' /etc/netns/{node}/resolv.conf",
        mends="sed -i 's/^nameserver .*/nameserver {server}/' /etc/netns/{node}/resolv.conf",
        evidence={
            "file": {"path": "/etc/netns/{node}/resolv.conf", "text": "nameserver {server}\n"}
        },
        symptom="one container resolves no name, the others do",
        cause="its resolv.conf names a server that is none",
        remedy="nameserver {server} in /etc/netns/{node}/resolv.conf",
        where="host",
    ),
    FaultKind(
        "no_search",
        "dns",
        breaks="sed -i '/^search/d' /etc/netns/{node}/resolv.conf",
        mends="echo 'search {domain}' >> /etc/netns/{node}/resolv.conf",
        evidence={"file": {"path": "/etc/netns/{node}/resolv.conf", "text": "search {domain}"}},
        symptom="full names resolve, short ones do not",
        cause="nothing completes a name without a dot",
        remedy="search {domain} in /etc/netns/{node}/resolv.conf",
        where="host",
    ),
    FaultKind(
        "stale_record",
        "dns",
        breaks="sed -i 's/^{name}\\. .*/{name}. 60 IN A {wrong}/' {zone}; {restart}",
        mends="sed -i 's/^{name}\\. .*/{name}. 60 IN A {address}/' {zone}; {restart}",
        evidence={"file": {"path": "{zone}", "text": "{name}. 60 IN A {address}\n"}},
        symptom="a name resolves, and nobody is there",
        cause="the server still gives an address that the container had before",
        remedy="mend {zone}, then: {restart}",
    ),
    FaultKind(
        "slow",
        "rate",
        breaks="tc qdisc add dev {dev} root tbf rate {rate} burst 2kb latency 50ms",
        mends="tc qdisc del dev {dev} root",
        evidence={"link": {"node": "{node}", "name": "{dev}", "limited": False}},
        symptom="pings are fast, downloads crawl",
        cause="a token bucket limits {dev} in {node} to {rate}",
        remedy="tc qdisc del dev {dev} root, in {node}",
        defaults={"rate": "32kbit"},
        needs=("tbf",),
    ),
)
