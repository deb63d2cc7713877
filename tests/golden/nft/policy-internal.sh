nft 'add element ip6 netplug bridges { "br0" }'
nft 'add element ip6 netplug same { "br0" . "br0" }'
nft 'add element ip6 netplug internal { "br0" }'
nft 'add element ip6 netplug unrouted { "br0" }'
