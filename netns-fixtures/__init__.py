# ruff: noqa: N999 - the folder has the name that the layout gives it; it is imported as netplug.fixtures
"""Topologies of hosts, switches and routers in short YAML, built from network namespaces.

    with build(load("two-hosts")) as lab:
        lab.in_node("red", work)

README.md beside this file describes the keys. Tests, the demo and labs use the same files.
"""

from netplug.fixtures.containerlab import Imported, export_containerlab, import_containerlab
from netplug.fixtures.load import load, names, parse_topology
from netplug.fixtures.running import Place, Running, build, rebuild
from netplug.fixtures.topology import End, Link, Node, StaticRoute, Switch, Topology

__all__ = [
    "End",
    "Imported",
    "Link",
    "Node",
    "Place",
    "Running",
    "StaticRoute",
    "Switch",
    "Topology",
    "build",
    "export_containerlab",
    "import_containerlab",
    "load",
    "names",
    "parse_topology",
    "rebuild",
]
