"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable


def render_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table with a line for each of `rows`; cells hold Markdown."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    cells = ((cell.replace("|", "\\|") for cell in line) for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
