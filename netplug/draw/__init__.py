"""Pictures of networks: a Scene (values), one layout, a text and a vector renderer. All pure."""

from netplug.draw.ascii import render_text
from netplug.draw.layout import compute_layout
from netplug.draw.scene import Box, Link, Plug, Scene
from netplug.draw.svg import render_svg
from netplug.draw.topology import Seen, scene_of

__all__ = [
    "Box",
    "Link",
    "Plug",
    "Scene",
    "Seen",
    "compute_layout",
    "render_svg",
    "render_text",
    "scene_of",
]
