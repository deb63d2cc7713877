"""The fixture `topology`: hosts, switches and routers from a file of netns-fixtures/."""

from netplug.fixtures.pytest_fixture import topology

__all__ = ["topology"]
