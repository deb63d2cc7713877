nft 'add element ip6 netplug masq { fd00:1::/64 comment "netplug: br0" }'
nft 'add element ip6 netplug local { fd00:1::/64 . fd00:1::/64 comment "netplug: br0", fd00:1::/64 . ff00::/8 comment "netplug: br0" }'
