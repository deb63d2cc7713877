"""Programs of the tree that `tests/engines/unpack.py` has made, for tests of other folders."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

UNPACK = Path(__file__).parent / "engines/unpack.py"


@cache
def _unpack() -> ModuleType:
    spec = importlib.util.spec_from_file_location("netplug_tests_unpack", UNPACK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def find_program(name: str) -> Path:
    """The unpacked program; the test is skipped, with the reason, where it cannot be had."""
    unpack = _unpack()
    try:
        found: Path = unpack.read_tree().program(name)
    except unpack.Unavailable as reason:
        pytest.skip(f"{name}: {reason}")
    return found
