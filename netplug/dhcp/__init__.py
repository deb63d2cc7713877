"""Addresses from a DHCP server of the network (RFC 2131): IPAM type `netplug-dhcp`.

packet.py    messages as bytes, and what an answer means. Pure.
client.py    the exchange: discover, request, renew, release, over sockets of `kernel`
leases.py    what is held, in the state file
ipam.py      the lease of one attachment, for the engine
renewal.py   renews what is held, in the agent
"""
