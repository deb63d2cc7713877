"""Pictures of what netplug made: a Scene (values), one layout, several renderers. All pure."""

from netplug.draw.ascii import render_text
from netplug.draw.layout import compute_layout
from netplug.draw.scene import AttachmentScene, NetworkScene, Scene

__all__ = ["AttachmentScene", "NetworkScene", "Scene", "compute_layout", "render_text"]
