"""Container networking for Linux: bridge, host, macvlan and overlay networks, over netlink."""

__version__ = "0.1.0"
