nft 'add element ip netplug bridges { "br0" }'
nft 'add element ip netplug same { "br0" . "br0" }'
nft 'add element ip netplug unrouted { "br0" }'
