ip link add link eth1 name eth0 address 8e:4e:9d:da:74:f3 mtu 1420 netns web type macvlan mode bridge
ip -n web link set eth0 alias netplug/lan/web/eth0
ip netns exec web sysctl -qw net/ipv4/conf/eth0/arp_notify=1
ip -n web link set lo up
ip -n web link set eth0 up
ip -n web address add 10.1.0.2/24 broadcast + dev eth0
ip link add link eth1 name shimfa6231a2daf address 5a:c2:6b:aa:9e:9f type macvlan mode bridge
ip link set shimfa6231a2daf alias netplug/shim/shimfa6231a2daf up
sysctl -qw net/ipv4/conf/shimfa6231a2daf/arp_filter=1
sysctl -qw net/ipv6/conf/shimfa6231a2daf/accept_ra=0 net/ipv6/conf/shimfa6231a2daf/accept_dad=0
ip address add 10.1.0.251/32 dev shimfa6231a2daf
ip route append 10.1.0.2/32 dev shimfa6231a2daf proto 110
