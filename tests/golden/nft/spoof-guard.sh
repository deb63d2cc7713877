nft 'add element bridge netplug guarded { "veth0" comment "netplug/0123456789abcdef01234567" }'
nft 'add element bridge netplug macs { "veth0" . 02:00:00:00:00:0a comment "netplug/0123456789abcdef01234567" }'
