"""CNI results of every spec version <-> `model.Result`, and the other documents of stdout.

Three shapes: 0.1-0.2 (ip4, ip6), 0.3-0.4 (ips with "version"), 1.x (without it; 1.1
adds MTUs and route attributes, which older versions are never sent).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netplug import __version__
from netplug.cni.golang import fold, parse_cidr, parse_ip, parse_network_address
from netplug.cni.reader import Reader
from netplug.cni.resolver import parse_dns
from netplug.cni.schema import RESULT
from netplug.cni.versions import CURRENT, SUPPORTED, family, require_supported
from netplug.errors import NetplugError, VersionError
from netplug.model import Dns, Interface, IPInterface, Result, ResultAddress, Route

TEXT_LIMIT = 2000  # characters of an error's msg or details


# --- Result -> JSON


def check_convertible(version: str, has_ips: bool) -> None:
    """Raises VersionError where `version` cannot express a result without (or with) addresses.

    To be called before the kernel is touched: an ADD whose result cannot be printed
    would leave an interface behind.
    """
    require_supported(version)
    if family(version) == "0.1-0.2" and not has_ips:
        raise VersionError(
            f"cannot convert the result to cniVersion {version}: no valid IP addresses",
            f"results of {version} consist of addresses, and this network gives none",
            "set cniVersion to 0.3.1 or later, or add an ipam section",
        )


def render_result(result: Result, version: str) -> dict[str, Any]:
    """The result as the JSON object of `version`. Raises VersionError (`check_convertible`)."""
    check_convertible(version, bool(result.ips))
    if family(version) == "0.1-0.2":
        return _render_old(result, version)
    extended = version == "1.1.0"
    before_1 = family(version) == "0.3-0.4"
    out: dict[str, Any] = {"cniVersion": version}
    if result.interfaces:
        out["interfaces"] = [_render_interface(i, extended=extended) for i in result.interfaces]
    if result.ips:
        out["ips"] = [_render_address(ip, family_key=before_1) for ip in result.ips]
    if result.routes:
        out["routes"] = [_render_route(route, extended=extended) for route in result.routes]
    if result.dns or before_1:  # libraries before 1.0 always printed the key
        out["dns"] = _render_dns(result.dns)
    return out


def _render_old(result: Result, version: str) -> dict[str, Any]:
    out: dict[str, Any] = {"cniVersion": version}
    for number in (4, 6):
        first = next((ip for ip in result.ips if ip.address.version == number), None)
        if first is None:
            continue
        entry: dict[str, Any] = {"ip": str(first.address)}
        if first.gateway is not None:
            entry["gateway"] = str(first.gateway)
        routes = [r for r in result.routes if r.dst.version == number]
        if routes:
            entry["routes"] = [_render_route(route, extended=False) for route in routes]
        out[f"ip{number}"] = entry
    out["dns"] = _render_dns(result.dns)
    return out


def _render_interface(interface: Interface, *, extended: bool) -> dict[str, Any]:
    out: dict[str, Any] = {"name": interface.name}
    if interface.mac:
        out["mac"] = interface.mac
    if extended and interface.mtu:
        out["mtu"] = interface.mtu
    if interface.sandbox:
        out["sandbox"] = interface.sandbox
    return out


def _render_address(ip: ResultAddress, *, family_key: bool) -> dict[str, Any]:
    out: dict[str, Any] = {"version": str(ip.address.version)} if family_key else {}
    if ip.interface is not None:
        out["interface"] = ip.interface
    out["address"] = str(ip.address)
    if ip.gateway is not None:
        out["gateway"] = str(ip.gateway)
    return out


def _render_route(route: Route, *, extended: bool) -> dict[str, Any]:
    out: dict[str, Any] = {"dst": str(route.dst)}
    if route.gw is not None:
        out["gw"] = str(route.gw)
    if extended:
        for key in ("mtu", "advmss", "priority"):  # 0 means absent
            if getattr(route, key):
                out[key] = getattr(route, key)
        for key in ("table", "scope"):  # 0 means 0
            if getattr(route, key) is not None:
                out[key] = getattr(route, key)
    return out


def _render_dns(dns: Dns) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if dns.nameservers:
        out["nameservers"] = list(dns.nameservers)
    if dns.domain:
        out["domain"] = dns.domain
    if dns.search:
        out["search"] = list(dns.search)
    if dns.options:
        out["options"] = list(dns.options)
    return out


# --- JSON -> Result


def parse_prev_result(value: Any, version: str) -> Result:
    """The prevResult of a config of `version`, in any version of the same family.

    Raises VersionError for another family, ConfigError for a wrong value.
    """
    own = value.get("cniVersion") if isinstance(value, dict) else None
    if isinstance(own, str) and own and family(own) != family(version):
        raise VersionError(
            "incompatible CNI versions",
            f"prevResult has cniVersion {own[:40]}, the config {version}",
            "pass a prevResult in the version of the config",
        )
    return parse_result(value, version, where="prevResult")


def parse_result(value: Any, version: str, *, where: str = "result") -> Result:
    """A result in the version that it names, else in `version`; `where` starts error texts.

    Raises VersionError for an unknown version, ConfigError for a wrong value.
    """
    reader = Reader(where)
    value = fold(reader.mapping(value, ""), RESULT)
    own = reader.text(value, "cniVersion", "") or version
    require_supported(own)
    if family(own) == "0.1-0.2":
        return _parse_old(value, reader)
    interfaces = tuple(
        _parse_interface(reader.mapping(item, path), reader, path)
        for path, item in reader.items(value, "interfaces", "")
    )
    return Result(
        interfaces=interfaces,
        ips=tuple(
            _parse_address(reader.mapping(item, path), reader, path, len(interfaces))
            for path, item in reader.items(value, "ips", "")
        ),
        routes=_parse_routes(value, reader, ""),
        dns=parse_dns(value, reader),
    )


def _parse_old(value: Mapping[str, Any], reader: Reader) -> Result:
    ips: list[ResultAddress] = []
    routes: list[Route] = []
    for key in ("ip4", "ip6"):
        if key not in value:
            continue
        entry = reader.mapping(value[key], key)
        ips.append(
            ResultAddress(
                address=reader.required(parse_cidr, entry, "ip", key),
                gateway=reader.optional(parse_ip, entry, "gateway", key),
            )
        )
        routes.extend(_parse_routes(entry, reader, key))
    return Result(ips=tuple(ips), routes=tuple(routes), dns=parse_dns(value, reader))


def _parse_interface(entry: Mapping[str, Any], reader: Reader, path: str) -> Interface:
    return Interface(
        name=reader.text(entry, "name", path),
        mac=reader.text(entry, "mac", path),
        mtu=reader.number(entry, "mtu", path) or None,
        sandbox=reader.text(entry, "sandbox", path),
    )


def _parse_address(
    entry: Mapping[str, Any], reader: Reader, path: str, interfaces: int
) -> ResultAddress:
    address: IPInterface = reader.required(parse_cidr, entry, "address", path)
    index = entry.get("interface")
    stray = isinstance(index, int) and not 0 <= index < interfaces
    return ResultAddress(
        address=address,
        gateway=reader.optional(parse_ip, entry, "gateway", path),
        # an index that points nowhere (some old libraries wrote -1) tells nothing
        interface=None if stray else reader.number(entry, "interface", path),
    )


def _parse_routes(value: Mapping[str, Any], reader: Reader, at: str) -> tuple[Route, ...]:
    routes = []
    for path, item in reader.items(value, "routes", at):
        entry = reader.mapping(item, path)
        routes.append(
            Route(
                dst=reader.required(parse_network_address, entry, "dst", path),
                gw=reader.optional(parse_ip, entry, "gw", path),
                mtu=reader.number(entry, "mtu", path) or None,
                advmss=reader.number(entry, "advmss", path) or None,
                priority=reader.number(entry, "priority", path) or None,
                table=reader.number(entry, "table", path),
                scope=reader.number(entry, "scope", path),
            )
        )
    return tuple(routes)


# --- the other documents


def render_error(error: Exception, version: str, *, verb: str = "") -> dict[str, Any]:
    """The error object: cniVersion, code, msg, details (the reason and the remedy)."""
    if isinstance(error, NetplugError):
        code, msg = error.cni_code, error.what
        details = "; ".join(filter(None, (error.why, error.hint)))
    else:
        code, msg = 999, f"internal error: {type(error).__name__}"
        details = f"{error}; this is a defect of netplug, please report it with the log"
    if verb == "DEL":
        msg, details = _reworded(msg), _reworded(details)
    out = {"cniVersion": version if version in SUPPORTED else CURRENT, "code": code}
    out["msg"] = _cut(msg)
    return {**out, "details": _cut(details)} if details else out


def _reworded(text: str) -> str:
    """go-cni (containerd) takes a DEL error with these words for success, and would not retry."""
    return text.replace("not found", "missing").replace(
        "no such file or directory", "file is missing"
    )


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}..."


def render_version(version: str = CURRENT) -> dict[str, Any]:
    """The reply to VERSION, for a caller that speaks `version`."""
    return {"cniVersion": version, "supportedVersions": list(SUPPORTED)}


def render_about(plugin: str) -> str:
    """Two lines for stderr; nerdctl reads the version from the first."""
    return (
        f"CNI {plugin} plugin v{__version__}\n"
        f"CNI protocol versions supported: {', '.join(SUPPORTED)}\n"
    )
