"""The generated tables of docs/ are those of today's code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tables_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs/reference.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, f"run: python docs/reference.py\n{done.stdout}{done.stderr}"
