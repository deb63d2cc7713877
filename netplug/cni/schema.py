"""How every key of the CNI exec interface is spelled, for case-blind matching.

None: a plain value, or an object whose keys are free. The schema of a list is that of
its objects.
"""

from __future__ import annotations

from netplug.cni.golang import Schema

DNS: Schema = dict.fromkeys(("nameservers", "domain", "search", "options"))

ROUTE: Schema = dict.fromkeys(("dst", "gw", "mtu", "advmss", "priority", "table", "scope"))

_IP_CONFIG: Schema = {"ip": None, "gateway": None, "routes": ROUTE}

RESULT: Schema = {
    "cniVersion": None,
    "interfaces": dict.fromkeys(("name", "mac", "mtu", "sandbox", "socketPath", "pciID")),
    "ips": dict.fromkeys(("version", "address", "gateway", "interface")),
    "ip4": _IP_CONFIG,
    "ip6": _IP_CONFIG,
    "routes": ROUTE,
    "dns": DNS,
}

NAMES: Schema = dict.fromkeys(("domain", "ttl", "services", "upstreams"))

CHAINED: Schema = {  # podman's plugin `dnsname`; a dnsmasq for each domain is no matter here
    **dict.fromkeys(("domainName", "remoteServers", "multiDomain")),
    "names": NAMES,
}

RANGE: Schema = dict.fromkeys(("subnet", "rangeStart", "rangeEnd", "gateway", "exclude"))

IPAM: Schema = {
    "type": None,
    "ranges": RANGE,
    **RANGE,
    "routes": ROUTE,
    "addresses": dict.fromkeys(("address", "gateway")),
    "dns": DNS,
    "dataDir": None,
    "resolvConf": None,
}

BANDWIDTH: Schema = dict.fromkeys(("ingressRate", "ingressBurst", "egressRate", "egressBurst"))

RUNTIME: Schema = {
    "portMappings": dict.fromkeys(("hostPort", "containerPort", "protocol", "hostIP")),
    "ipRanges": RANGE,
    "bandwidth": BANDWIDTH,
    "dns": dict.fromkeys(("servers", "searches", "options")),
    "ips": None,
    "mac": None,
    "aliases": None,
}

ARGS: Schema = {"cni": dict.fromkeys(("mac", "ips", "mtu", "sysctl"))}

ATTACHMENT: Schema = dict.fromkeys(("containerID", "ifname"))
VALID_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")  # spec name, old name

REQUEST: Schema = {
    **dict.fromkeys(("cniVersion", "cniVersions", "name", "type", "driver", "firewall")),
    **dict.fromkeys(("capabilities", "disableCheck", "disableGC")),
    **BANDWIDTH,
    "ipam": IPAM,
    "dns": DNS,
    "names": NAMES,
    "args": ARGS,
    "runtimeConfig": RUNTIME,
    "prevResult": RESULT,
    **dict.fromkeys(VALID_ATTACHMENTS, ATTACHMENT),
}
"""The keys of a plugin's stdin that belong to no driver."""
