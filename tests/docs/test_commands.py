"""The documentation is true: its commands run, its configurations parse, its links lead somewhere.

A document is one shell: the commands of its ```console blocks, and its ```python blocks as
programs, run one after the other, on a host of their own. Comments steer it:

    <!-- needs: podman -->    the next block is left out: it wants what the sandbox has not
    <!-- status: 4 -->        the last command of the next block ends with this status, not 0

Output that a block shows must be what the command says, stderr included; `...` stands for
anything inside a line, and alone on a line for any lines. No output shown: none is compared.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from netplug import plugins
from netplug.cni.conflist import parse_conflist
from netplug.config import driver_name, is_ours, parse_network

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?P<marks>(?:^<!-- (?:needs|status): [^\n]* -->\n)*)^```(?P<kind>\w+)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?:)(?P<target>[^)#]*)(?:#(?P<heading>[^)]*))?\)")
PATIENCE = 240  # seconds for one document
RUN = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"

# A host of its own: what the documents write goes, and nothing of the machine is seen.
PREPARE = """
set -u
for folder in /run/netns /run/netplug /etc/cni /var/lib/cni /var/lib/netplug /opt /tmp; do
    case $KEEP in $folder/*) continue ;; esac  # the clone itself lies there
    mkdir -p $folder && mount -t tmpfs -o mode=755 docs $folder || exit 99
done
hostname host
cd "$(mktemp -d)" || exit 99
command -v curl >/dev/null || curl() {  # ./run does not install it
    python3 - "$@" <<'END'
import sys, time, urllib.request
for _ in range(99):
    try:
        print(urllib.request.urlopen(sys.argv[-1], timeout=9).read().decode(), end="")
        break
    except ConnectionError:
        time.sleep(0.1)
    except OSError as error:
        if not isinstance(getattr(error, "reason", None), ConnectionError):
            raise
        time.sleep(0.1)
else:
    sys.exit(7)
END
}
"""
STEP = """
printf '\\n%s %d\\n' {mark} {number}
eval {command} 2>&1 </dev/null
status=$?
printf '\\n%s %d ended %d\\n' {mark} {number} $status
[ $status = {status} ] || exit 1
"""
MARK = "@@step"


@dataclass(frozen=True, slots=True)
class Step:
    """One command, the status it must end with, and what the document shows of its output."""

    command: str
    status: int = 0
    shown: tuple[str, ...] = ()


def parse_steps(text: str) -> list[Step]:
    """The commands of a document, in order."""
    steps: list[Step] = []
    blocks = list(BLOCK.finditer(text))
    assert 2 * len(blocks) == len(re.findall("^```", text, re.MULTILINE)), "a block is not read"
    for block in blocks:
        marks = dict(re.findall(r"<!-- (\w+): (.*) -->", block["marks"]))
        if "needs" in marks or block["kind"] not in ("console", "python"):
            continue
        if block["kind"] == "python":
            found = [Step(f"python3 -c {shlex.quote(block['body'])}")]
        else:
            found = list(parse_console(block["body"]))
        last = found.pop()
        steps += [*found, Step(last.command, int(marks.get("status", 0)), last.shown)]
    return steps


def parse_console(body: str) -> Iterator[Step]:
    """Commands after `$ `, continued by lines after `> `; the other lines are output."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        first, *rest = part.splitlines()
        count = next((i for i, line in enumerate(rest) if not line.startswith("> ")), len(rest))
        command = "\n".join([first, *(line[2:] for line in rest[:count])])
        yield Step(command, shown=tuple(rest[count:]))


def render_script(steps: list[Step]) -> str:
    return PREPARE + "".join(
        STEP.format(mark=MARK, number=number, command=shlex.quote(s.command), status=s.status)
        for number, s in enumerate(steps)
    )


def compute_pattern(shown: tuple[str, ...]) -> re.Pattern[str]:
    """Matches output that agrees with what is shown; runs of blanks count as one."""
    lines = (" ".join(line.split()) for line in shown)
    parts = (
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in lines
        if line
    )
    return re.compile("".join(parts))


def normalise(output: str) -> str:
    lines = (" ".join(line.split()) for line in output.splitlines())
    return "".join(f"{line}\n" for line in lines if line)


def run_script(script: str, folder: Path) -> str:
    """What the commands said. The shell and all that it started end here: a namespace of
    processes dies with its first one, and takes along what left the shell's session."""
    transcript, file = folder / "transcript", folder / "script"
    file.write_text(script)
    with transcript.open("w") as output:
        process = subprocess.Popen(
            [
                *("unshare", "--mount", "--uts", "--propagation", "private"),
                *("--pid", "--fork", "--kill-child", "--mount-proc", "bash", str(file)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            env={
                "PATH": RUN,
                "KEEP": str(ROOT),
                "LC_ALL": "C.UTF-8",
                "PYTHONUNBUFFERED": "1",
                "HOME": str(folder),
                "TMPDIR": str(folder),
            },
        )
        try:
            process.wait(PATIENCE)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    return transcript.read_text()


def check_steps(steps: list[Step], transcript: str) -> None:
    for number, step in enumerate(steps):
        found = re.search(
            rf"^{MARK} {number}\n(.*?)^{MARK} {number} ended (\d+)$",
            transcript,
            re.MULTILINE | re.DOTALL,
        )
        assert found, f"never came to the end of: {step.command}\n{transcript[-2000:]}"
        assert int(found[2]) == step.status, f"$ {step.command}\n{found[1]}ended with {found[2]}"
        said = normalise(found[1])
        if step.shown and not compute_pattern(step.shown).fullmatch(said):
            shown = "\n".join(step.shown)
            pytest.fail(f"$ {step.command}\nthe document shows:\n{shown}\nit says:\n{said}")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands(page: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    steps = parse_steps(page.read_text())
    if not steps:
        return
    host: Any = request.getfixturevalue("host")  # skips where namespaces cannot be had
    check_steps(steps, host.call(partial(run_script, render_script(steps), tmp_path)))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_configurations(page: Path) -> None:
    for block in BLOCK.finditer(page.read_text()):
        if block["kind"] != "json":
            continue
        if "plugins" not in json.loads(block["body"]):
            continue
        conflist = parse_conflist(block["body"].encode(), f"{page.name}.conflist")
        for index, plugin in enumerate(conflist.plugins):
            if is_ours(plugin["type"]):
                config = conflist.request_config(index)
                options = plugins.get_driver(driver_name(config)).options
                parse_network(config, options, strict_unknown=True)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links(page: Path) -> None:
    for link in LINK.finditer(page.read_text()):
        target = page.parent / link["target"] if link["target"] else page
        assert target.exists(), f"{page.name} links to {link['target']}, which is not there"
        if link["heading"]:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}
            assert link["heading"] in slugs, f"{target.name} has no heading #{link['heading']}"


def test_what_is_shown_is_compared() -> None:
    text = "<!-- status: 4 -->\n```console\n$ one \\\n> two\nout  ...\n...\nend\n```\n"
    (step,) = parse_steps(text)
    assert (step.command, step.status) == ("one \\\ntwo", 4)
    pattern = compute_pattern(step.shown)
    assert pattern.fullmatch(normalise("out put\nmore\n\nend  \n"))
    assert not pattern.fullmatch(normalise("out put\nmore\n"))
