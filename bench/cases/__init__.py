"""Every case, in the order of the report. A new one is a module here and a line below."""

from __future__ import annotations

from bench.case import Case
from bench.cases import (
    attach,
    labs,
    memory,
    names,
    netavark,
    overlay,
    parallel,
    scale,
    shell,
)

CASES: tuple[Case, ...] = (
    *attach.CASES,
    *parallel.CASES,
    *netavark.CASES,
    *shell.CASES,
    *labs.CASES,
    *memory.CASES,
    *names.CASES,
    *overlay.CASES,
    *scale.CASES,  # last: the kernel needs a while to destroy its hosts
)
