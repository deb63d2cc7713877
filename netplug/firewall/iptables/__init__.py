"""The iptables backend: for hosts whose rules live in the legacy tables.

    rules     intents as rules, and as the commands one would type (pure)
    backend   IptablesFirewall, and LegacyAccept in aid of nft: what the rest of netplug uses
    process   runs the child: one request, one short process
    child     that process; with `tables` (libiptc) and `changes`, all that knows python-iptables

The child is born in the host's namespace, takes the lock of `iptables -w`, changes each table
by one commit, and ends. The process that asks never loads python-iptables. The child imports
this package too, so nothing here may bring `netplug.kernel` (pyroute2, 0.2 s) along at once.
"""

from netplug.firewall.iptables.backend import IptablesFirewall, LegacyAccept
from netplug.firewall.iptables.rules import render_shell

__all__ = ["IptablesFirewall", "LegacyAccept", "render_shell"]
