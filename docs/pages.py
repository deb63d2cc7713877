"""mkdocs hooks: pages that lie beside docs/ are pages of the site as well.

In the repository links lead from file to file (`../CONTRIBUTING.md`, `docs/scripts.md`), so that
they work wherever it is looked at. On the site they lead to the page that the file became; a link
to a file that is no page becomes its text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
BESIDE = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "netns-fixtures/README.md": "topologies.md",
}
LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?!\w+:|#)(?P<target>[^)#\s]+)(?P<heading>#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File

    for source, uri in BESIDE.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    uri = page.file.src_uri
    source = next((path for path, made in BESIDE.items() if made == uri), f"docs/{uri}")

    def relink(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), found["target"]))
        target = BESIDE.get(path, path.removeprefix("docs/"))
        if path not in BESIDE and (ROOT / path).exists() and target not in files.src_uris:
            return found["text"]
        target = posixpath.relpath(target, posixpath.dirname(uri) or ".")
        return f"[{found['text']}]({target}{found['heading'] or ''})"

    return LINK.sub(relink, markdown)
