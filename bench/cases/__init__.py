"""Every case, in the order of the report. A new one is a module here and a line below."""

from __future__ import annotations

from bench.case import Case
from bench.cases import attach

CASES: tuple[Case, ...] = (*attach.CASES,)
