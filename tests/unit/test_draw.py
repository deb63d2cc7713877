"""Pictures: golden ones to look at, and what holds for every scene."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
import xml.etree.ElementTree as ET
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import FrameType

import pytest
from drawing import (
    CHAIN,
    OVERLAY,
    SCENES,
    SHARED,
    make_star,
    make_tree,
    scenes,
)
from hypothesis import given, settings

from netplug.draw import Box, Link, Plug, Scene, compute_layout, render_svg, render_text
from netplug.draw.ascii import JOINTS
from netplug.draw.channel import route
from netplug.draw.shapes import Frame, Layout
from netplug.draw.svg import fit_layout

GOLDEN = Path(__file__).parents[1] / "golden" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"
few = settings(deadline=None, max_examples=40)


def compare(name: str, text: str) -> None:
    """NETPLUG_GOLDEN=write makes them anew, to be looked at as a difference."""
    path = GOLDEN / name
    if os.environ.get("NETPLUG_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, f"{name} has changed; look at it: NETPLUG_GOLDEN=write"


@pytest.mark.parametrize("name", SCENES)
def test_golden_text(name: str) -> None:
    compare(f"{name}.txt", render_text(SCENES[name]) + "\n")


@pytest.mark.parametrize("name", ["shared", "overlay", "home"])
def test_golden_svg(name: str) -> None:
    compare(f"{name}.svg", render_svg(SCENES[name], title=name))


@pytest.mark.parametrize("name", SCENES)
def test_shipped_scenes_fit_a_terminal(name: str) -> None:
    assert max(map(len, render_text(SCENES[name]).splitlines())) <= 80


def test_plain_characters_on_request() -> None:
    text = render_text(SHARED, charset="ascii")
    assert text.isascii()
    assert ":8080->80/tcp" in text


def test_colours_on_request_alone() -> None:
    assert "\x1b" not in render_text(SHARED)
    coloured = render_text(SHARED, colour=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_text(SHARED)
    assert "\x1b[0;36m" in coloured


def test_nothing_to_show() -> None:
    assert render_text(Scene()) == "nothing to show"
    assert "host demo" in render_text(Scene(hosts=("demo",)))
    ET.fromstring(render_svg(Scene()))


def test_many_boxes_on_one_bridge_drop_details() -> None:
    text = render_text(make_star(50))
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) < 60
    assert all(f" h{i} " in text for i in range(50))
    assert "10.0.0.51" in text and "eth0" not in text


def test_what_is_down_is_drawn_so() -> None:
    boxes = (Box("lan", "bridge", "lan"), Box("web", "namespace", "web", up=False))
    link = Link(Plug("lan", "veth1"), Plug("web"), up=False)
    text = render_text(Scene(boxes, (link,)))
    assert "╎ veth1 down" in text and "╭╌╌" in text
    assert 'class="link c0 down"' in render_svg(Scene(boxes, (link,)))


def test_a_scene_says_what_is_wrong_with_it() -> None:
    web = Box("web", "namespace", "web")
    with pytest.raises(ValueError, match="two boxes are called web"):
        Scene((web, web))
    with pytest.raises(ValueError, match="lan, which is no box"):
        Scene((web,), (Link(Plug("lan"), Plug("web")),))
    with pytest.raises(ValueError, match="h, which is no host"):
        Scene((Box("web", "namespace", "web", host="h"),))
    with pytest.raises(ValueError, match="a door"):
        Scene(
            (Box("web", "namespace", "web", host="h"), Box("x", "outside", "x")),
            (Link(Plug("x"), Plug("web")),),
            ("h",),
        )


def test_joints_are_what_unicode_calls_them() -> None:
    assert len(JOINTS) == 81
    assert len(set(JOINTS)) == 81
    assert unicodedata.name(JOINTS[27 + 9 + 3 + 1]) == "BOX DRAWINGS LIGHT VERTICAL AND HORIZONTAL"
    assert unicodedata.name(JOINTS[54 + 6 + 1]) == "BOX DRAWINGS VERTICAL HEAVY AND LEFT LIGHT"
    assert unicodedata.name(JOINTS[18 + 3 + 2]) == "BOX DRAWINGS DOWN LIGHT AND HORIZONTAL HEAVY"


# What holds for every picture.


def cells(frame: Frame) -> set[tuple[int, int]]:
    columns = range(frame.x, frame.x + frame.width)
    return {(x, y) for x in columns for y in range(frame.y, frame.y + frame.height)}


def segments(layout: Layout) -> Counter[tuple[tuple[int, int], str]]:
    """How many links run through each cell, by direction; their turns and ends left out."""
    found: Counter[tuple[tuple[int, int], str]] = Counter()
    for line in layout.lines:
        if line.link < 0:
            continue
        for (x1, y1), (x2, y2) in pairwise(line.points):
            assert x1 == x2 or y1 == y2
            for x in range(min(x1, x2) + 1, max(x1, x2)):
                found[(x, y1), "across"] += 1
            for y in range(min(y1, y2) + 1, max(y1, y2)):
                found[(x1, y), "down"] += 1
    return found


def check_layout(scene: Scene, layout: Layout) -> None:
    taken: set[tuple[int, int]] = set()
    for frame in layout.frames:
        assert frame.x >= 0 and frame.x + frame.width <= layout.width
        assert frame.y >= 0 and frame.y + frame.height <= layout.height
        if frame.title:
            assert frame.title_x + len(frame.title) + 2 < frame.width + 1
        if frame.role != "host":
            assert not cells(frame) & taken, f"{frame.title} lies on another box"
            taken |= cells(frame)
    words: set[tuple[int, int]] = set()
    for label in layout.labels:
        assert label.x >= 0 and label.x + len(label.text) <= layout.width, label
        assert 0 <= label.y < layout.height, label
        mine = {(label.x + i, label.y) for i in range(len(label.text))}
        assert not mine & words, f"{label.text} is written over another label"
        words |= mine
    for label in layout.labels:
        words |= {(label.x + i, label.y) for i in range(label.width)}
    borders = taken | words | {cell for f in layout.frames for cell in cells(f)}
    drawn = Counter(line.link for line in layout.lines if line.link >= 0)
    assert drawn == Counter(range(len(scene.links)))
    for line in layout.lines:
        for x, y in line.points:
            assert 0 <= x < layout.width and 0 <= y < layout.height
        assert line.points[0] in borders or line.link < 0, f"{line} hangs in the air"
        assert line.points[-1] in borders or line.link < 0, f"{line} hangs in the air"
    assert max(segments(layout).values(), default=1) == 1, "two links run on one another"


@few
@given(scenes())
def test_every_picture_is_whole(scene: Scene) -> None:
    for width in (50, 80, 160):
        check_layout(scene, compute_layout(scene, width=width))
    text = render_text(scene)
    for box in scene.boxes:
        assert box.title[:6] in text
    assert render_text(scene, charset="ascii").isascii()


@few
@given(scenes())
def test_every_svg_stands_alone(scene: Scene) -> None:
    text = render_svg(scene)
    root = ET.fromstring(text)
    assert not re.search(r"script|href|url\(|@import|@font-face|<image|<use", text)
    assert text.count("http") == 1  # the name of SVG itself
    width, height = (float(root.attrib[key]) for key in ("width", "height"))
    for element in root.iter(f"{SVG}text"):
        length = len(element.text or "") * 8
        assert 0 <= float(element.attrib["x"]) + length <= width
        assert 0 < float(element.attrib["y"]) <= height
    links = [e for e in root.iter(f"{SVG}path") if "link" in e.attrib["class"].split()]
    plugs = [e for e in root.iter(f"{SVG}rect") if "plug" in e.attrib["class"].split()]
    assert len(links) == len(scene.links) and len(plugs) == 2 * len(links)


@pytest.mark.parametrize("scene", [OVERLAY, SHARED, CHAIN], ids=["overlay", "shared", "chain"])
def test_the_same_scene_gives_the_same_picture(scene: Scene) -> None:
    assert render_svg(scene) == render_svg(scene)
    check_layout(scene, fit_layout(scene))


def test_a_swap_of_columns_takes_a_side_step() -> None:
    """Each comes down where the other one goes on: no order of tracks serves both."""
    passes, tracks = route([(0, 0, 8), (1, 8, 0)])
    assert tracks >= 2
    assert sorted(len(way.turns) for way in passes) == [1, 2]
    assert [way.turns[-1][1] for way in passes] == [8, 0]


def count_calls(scene: Scene) -> int:
    """Function calls that one layout takes: a figure that no busy machine can change."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        compute_layout(scene)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("make", [make_star, make_tree], ids=["star", "tree"])
def test_five_hundred_nodes_are_placed_in_no_time(make: object) -> None:
    """Measured: 5.7 million calls took 0.9 s of CPU. Twice the nodes are less than four
    times the work: no step is quadratic."""
    half, whole = (count_calls(make(nodes)) for nodes in (250, 500))  # type: ignore[operator]
    assert whole < 4_000_000
    assert whole < 4 * half
