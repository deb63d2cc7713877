nft 'add element ip netplug masq { 10.1.0.0/24 comment "netplug: br0" }'
nft 'add element ip netplug local { 10.1.0.0/24 . 10.1.0.0/24 comment "netplug: br0", 10.1.0.0/24 . 224.0.0.0/4 comment "netplug: br0" }'
