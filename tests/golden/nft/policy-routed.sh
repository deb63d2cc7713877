nft 'add element ip6 netplug bridges { "br0" }'
nft 'add element ip6 netplug same { "br0" . "br0" }'
