nft 'create element ip netplug publish_ip { 127.0.0.1 . tcp . 8080 comment "netplug/0123456789abcdef01234567" : 10.1.0.2 . 80 }'
nft 'create element ip netplug publish_any { tcp . 8081 comment "netplug/0123456789abcdef01234567" : 10.1.0.2 . 81 }'
