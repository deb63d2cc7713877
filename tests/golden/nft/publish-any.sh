nft 'create element ip netplug publish_any { tcp . 8080 comment "netplug/0123456789abcdef01234567" : 10.1.0.2 . 80, udp . 53 comment "netplug/0123456789abcdef01234567" : 10.1.0.2 . 53 }'
