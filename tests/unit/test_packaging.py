"""sdist -> wheel -> a clean venv: what a user gets, and that it is `netplug` alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {".": "netplug", "plugins": "plugins", "ipam": "ipam", "fixtures": "netns-fixtures"}
SHIPPED = {".py", ".yaml", ".typed", ".c"}


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with nothing but netplug, built from a copy of the tree as the index would get it."""
    place = tmp_path_factory.mktemp("packaging")
    tree = place / "tree"
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", place, tree)
    venv.create(place / "venv")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", place / "venv"]
    run(*pip, "install", "--no-deps", "--no-index", next(place.glob("*.whl")))
    return place / "venv"


def site_packages(prefix: Path) -> Path:
    return next(prefix.glob("lib/python3*/site-packages"))


def test_site_packages_gets_netplug_alone(prefix: Path) -> None:
    names = {path.name for path in site_packages(prefix).iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"netplug"}


def test_every_file_of_the_tree_is_shipped(prefix: Path) -> None:
    installed = site_packages(prefix) / "netplug"
    missing = [
        str(path.relative_to(ROOT))
        for name, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in SHIPPED or (path.is_file() and "course" in path.parts)
        if not (installed / name / path.relative_to(ROOT / folder)).exists()
    ]
    assert not missing, f"list these in pyproject.toml: {missing}"


def test_what_is_installed_can_be_imported(prefix: Path) -> None:
    """Without any dependency: a plugin's own modules import none at this level."""
    origin = run(prefix / "bin/python", "-I", "-c", "import netplug.model as m; print(m.__file__)")
    assert origin.startswith(str(prefix))
    assert (prefix / "bin/netplug").exists()
