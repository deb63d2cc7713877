nft 'create element ip6 netplug publish_any { tcp . 8080 comment "netplug/0123456789abcdef01234567" : fd00:1::2 . 80 }'
nft 'create element ip6 netplug publish_ip { fd00:9::1 . sctp . 9 comment "netplug/0123456789abcdef01234567" : fd00:1::2 . 9 }'
