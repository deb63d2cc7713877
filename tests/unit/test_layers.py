"""Imports run one way: the layers of the design, read from the source of the whole tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {  # import name -> folder; the symlinks below netplug/ say the same a second time
    "netplug": ROOT / "netplug",
    "netplug.plugins": ROOT / "plugins",
    "netplug.ipam": ROOT / "ipam",
    "netplug.fixtures": ROOT / "netns-fixtures",
}

# Lowest first. A unit imports itself and the lines above its own; what is not listed is an edge.
LAYERS = [
    {"netplug.errors"},
    {"netplug.model"},
    {"netplug.codec"},
    {"netplug.firewall.intent"},
    {"netplug.ipam", "netplug.ports", "netplug.locks", "netplug.kernel", "netplug.store"},
    {"netplug.resources", "netplug.dhcp"},
    {"netplug.plan", "netplug.firewall"},
    {"netplug.plugins", "netplug.statefile", "netplug.cni.files"},
    {"netplug.state"},
    {"netplug.partners"},
    {"netplug.host", "netplug.reconcile"},
    {"netplug.overlay"},
    {"netplug.admission", "netplug.resolver_files"},
    {"netplug.upkeep"},
    {"netplug.engine"},
    {"netplug.leasing", "netplug.chained", "netplug.preview"},
]
EDGE = len(LAYERS)
LEVELS = {unit: level for level, units in enumerate(LAYERS) for unit in units}

# Where the design is stricter than the order of the layers.
ONLY = {
    "netplug.ipam": {"netplug.model", "netplug.errors", "netplug.codec"},
    "netplug.plugins": {
        "netplug.model",
        "netplug.resources",
        "netplug.plan",
        "netplug.errors",
        "netplug.firewall.intent",
    },
}
EDGES_ONLY = {"subprocess", "pydantic", "typer", "click", "rich", "yaml"}
ONLY_IN = {
    "pyroute2": "netplug.kernel",
    "iptc": "netplug.firewall.iptables",
    "aetcd": "netplug.store",
    "grpc": "netplug.store",
}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@cache
def modules() -> dict[str, Path]:
    """Every module of the tree by its import name."""
    found = {}
    for package, folder in SOURCES.items():
        for path in folder.rglob("*.py"):  # which does not follow symlinks
            inside = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *inside]).removesuffix(".__init__")] = path
    return found


@cache
def imports(name: str) -> frozenset[str]:
    """Modules that `name` imports when it runs, inside functions too; not those for types."""
    path = modules()[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: 1 - node.level or None], base]).strip(".")
            members = {f"{base}.{alias.name}" for alias in node.names}
            found |= members & modules().keys() or {base}
    return frozenset(found)


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from runtime_nodes(child)


def unit_of(name: str) -> str:
    """The layered unit that a module belongs to; an edge is a unit of its own."""
    fitting = [unit for unit in LEVELS if within(name, unit)]
    return max(fitting, key=len) if fitting else name


def level_of(name: str) -> int:
    return 0 if name == "netplug" else LEVELS.get(unit_of(name), EDGE)


@pytest.mark.parametrize("name", modules())
def test_imports_go_down(name: str) -> None:
    unit, level = unit_of(name), level_of(name)
    for target in imports(name):
        if within(target, "netplug"):
            allowed = level_of(target) < level or unit_of(target) == unit or level == EDGE
            assert allowed, f"{name} (layer {level}) imports {target} (layer {level_of(target)})"
            if unit in ONLY:
                assert unit_of(target) in ONLY[unit] | {unit}, f"{name} imports {target}"
            continue
        top = target.partition(".")[0]
        assert top not in EDGES_ONLY or level == EDGE, f"{name} imports {top}: for edges only"
        assert within(name, ONLY_IN.get(top, name)), f"{name} imports {top}"
        assert unit != "netplug.ipam" or top in sys.stdlib_module_names, f"{name} imports {top}"


@pytest.mark.parametrize("name", [name for name in modules() if level_of(name) < EDGE])
def test_only_edges_read_the_environment(name: str) -> None:
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in ("os.environ", "os.environb", "os.getenv"), name


def test_generic_names_are_never_imported() -> None:
    """Every module can be imported, and none brings a top-level `plugins` or `ipam`."""
    names = [name for name in modules() if not name.endswith("__main__")]
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "found = {'plugins', 'ipam', 'fixtures'} & set(sys.modules)\n"
        "sys.exit(f'top-level: {found}' if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *names], capture_output=True, text=True, cwd=ROOT
    )
    assert not done.returncode, done.stderr
