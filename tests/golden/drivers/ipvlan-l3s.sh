ip link add link eth1 name eth0 mtu 1300 netns web type ipvlan mode l3s
ip -n web link set eth0 alias netplug/lan/web/eth0
ip netns exec web sysctl -qw net/ipv4/conf/eth0/arp_notify=1 net/ipv6/conf/lo/disable_ipv6=0 net/ipv6/conf/eth0/disable_ipv6=0 net/ipv6/conf/eth0/accept_dad=0 net/ipv6/conf/eth0/enhanced_dad=0 net/ipv6/conf/eth0/keep_addr_on_down=1 net/ipv6/conf/eth0/ndisc_notify=1
ip -n web link set lo up
ip -n web link set eth0 up
ip -n web address add 10.1.0.2/24 broadcast + dev eth0
ip -n web address add fd00:1::2/64 nodad dev eth0
