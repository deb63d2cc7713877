nft 'create element ip netplug publish_any { sctp . 3868 comment "netplug/0123456789abcdef01234567" : 10.1.0.2 . 5868 }'
