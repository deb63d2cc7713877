"""What one would type instead of an intent, in the words of each backend; see `Shell.render`."""

from __future__ import annotations

from netplug.firewall.intent import Intent


def render(backend: str, intent: Intent) -> list[str]:
    """The commands, in order; lines that begin with # are explanations."""
    if backend == "nft":
        from netplug.firewall.nft_text import render_shell
    elif backend == "iptables":
        from netplug.firewall.iptables.rules import render_shell
    else:
        from netplug.firewall.none import render_shell
    return render_shell(intent)
