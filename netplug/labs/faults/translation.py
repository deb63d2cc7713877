"""Faults of NAT, filters and MTU."""

from netplug.labs.faults.base import FaultKind

FILTER = "nft add table ip fault; nft add chain ip fault drops"
PLAIN = "'{ type filter hook %s priority %s; }'"


def _drop(hook: str, rule: str, *, priority: str = "-10") -> str:
    """Commands that make a table with one chain and one rule."""
    return f"{FILTER} {PLAIN % (hook, priority)}; nft add rule ip fault drops '{rule}'"


GONE = "nft delete table ip fault"

TRANSLATION = (
    FaultKind(
        "no_masquerade",
        "nat",
        breaks="nft flush chain ip nat {chain}",
        mends="nft add rule ip nat {chain} {rule}",
        evidence={"ruleset": {"node": "{node}", "has": "{rule}"}},
        symptom="containers reach the machine and its neighbours' answers never come back",
        cause="their private addresses are not translated on the way out",
        remedy="nft add rule ip nat {chain} {rule}",
    ),
    FaultKind(
        "no_hairpin_masquerade",
        "nat",
        breaks="nft flush chain ip nat {chain}",
        mends="nft add rule ip nat {chain} {rule}",
        evidence={"ruleset": {"node": "{node}", "has": "{rule}"}},
        symptom="a published port works from outside, and not from a container beside",
        cause="the answer goes directly, from an address to which nobody had written",
        remedy="nft add rule ip nat {chain} {rule}",
    ),
    FaultKind(
        "no_hairpin",
        "nat",
        breaks="bridge link set dev {dev} hairpin off",
        mends="bridge link set dev {dev} hairpin on",
        evidence={
            "port": {"node": "{node}", "bridge": "{bridge}", "links": ["{dev}"], "hairpin": True}
        },
        symptom="where the bridge calls the firewall (br_netfilter), a container cannot reach its"
        " own published port",
        cause="the bridge translates the frame itself, and never sends one back where it came from",
        remedy="bridge link set dev {dev} hairpin on, in {node}",
    ),
    FaultKind(
        "forward_drop",
        "filter",
        breaks="nft add table ip docker\n"
        "nft add chain ip docker forward '{ type filter hook forward priority 0; policy drop; }'",
        mends="nft delete table ip docker",
        evidence={"ruleset": {"node": "{node}", "has": "policy drop", "exists": False}},
        symptom="since Docker was installed, nothing is forwarded any more",
        cause="a forward chain with policy drop; an accept in another table does not help",
        remedy="accept your bridge in that chain, or set its policy to accept",
    ),
    FaultKind(
        "rule_order",
        "filter",
        breaks="nft insert rule ip filter {chain} tcp dport {port} drop",
        mends="nft flush chain ip filter {chain}\n"
        "nft add rule ip filter {chain} tcp dport {port} accept",
        evidence={"ruleset": {"node": "{node}", "has": "tcp dport {port} drop", "exists": False}},
        symptom="there is a rule that accepts, and the port is closed all the same",
        cause="a rule before it drops: the first one that fits decides",
        remedy="nft -a list chain ip filter {chain}, then delete the rule by its handle",
    ),
    FaultKind(
        "published_wrong",
        "nat",
        breaks="nft flush chain ip nat {chain}; nft add rule ip nat {chain} {wrong}",
        mends="nft flush chain ip nat {chain}; nft add rule ip nat {chain} {rule}",
        evidence={"ruleset": {"node": "{node}", "has": "{rule}"}},
        symptom="a published port is silent from outside",
        cause="it leads to an address that no container has (any more)",
        remedy="replace the rule of chain {chain} by: {rule}",
    ),
    FaultKind(
        "icmp_filtered",
        "mtu",
        # what was learned of the path's MTU before would last for ten minutes
        breaks=_drop("prerouting", "icmp type destination-unreachable drop", priority="-300")
        + "; ip -n {sender} route flush cache",
        mends=GONE,
        evidence={
            "ruleset": {"node": "{node}", "has": "destination-unreachable drop", "exists": False}
        },
        symptom="connections open, and hang as soon as there is much to send",
        cause="the ICMP errors that say 'fragmentation needed' are dropped as unwanted",
        remedy="let ICMP destination-unreachable pass: nft delete table ip fault, in {node}",
    ),
    FaultKind(
        "dns_dropped",
        "dns",
        breaks=_drop("input", "udp dport 53 drop"),
        mends=GONE,
        evidence={"ruleset": {"node": "{node}", "has": "udp dport 53 drop", "exists": False}},
        symptom="names take for ever and then fail; addresses work",
        cause="questions (UDP port 53) are dropped on their way in",
        remedy="nft list ruleset in {node}; delete the rule",
    ),
    FaultKind(
        "dns_tcp_dropped",
        "dns",
        breaks=_drop("input", "tcp dport 53 drop"),
        mends=GONE,
        evidence={"ruleset": {"node": "{node}", "has": "tcp dport 53 drop", "exists": False}},
        symptom="most names resolve; one with many addresses does not",
        cause="its answer does not fit into a datagram, and TCP port 53 is closed",
        remedy="nft list ruleset in {node}; let TCP port 53 pass",
    ),
    FaultKind(
        "tunnel_filtered",
        "overlay",
        breaks=_drop("input", "udp dport {port} drop"),
        mends=GONE,
        evidence={"ruleset": {"node": "{node}", "has": "udp dport {port} drop", "exists": False}},
        symptom="the machines reach each other, their containers do not",
        cause="a firewall of {node} drops the tunnel's packets (UDP port {port})",
        remedy="nft list ruleset in {node}; let UDP port {port} pass",
        defaults={"port": "4789"},
    ),
    FaultKind(
        "loss",
        "rate",
        breaks=_drop("prerouting", "numgen random mod 100 < {percent} drop"),
        mends=GONE,
        evidence={"ruleset": {"node": "{node}", "has": "numgen random", "exists": False}},
        symptom="everything works, slowly and unreliably",
        cause="{percent} of 100 packets are lost in {node}",
        remedy="nft list ruleset in {node}; delete what drops at random",
        defaults={"percent": "40"},
    ),
)
