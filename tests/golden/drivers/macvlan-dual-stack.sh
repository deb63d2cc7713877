ip link add link eth1 name eth0 address 8e:4e:9d:da:74:f3 mtu 1420 netns web type macvlan mode bridge
ip -n web link set eth0 alias netplug/lan/web/eth0
ip netns exec web sysctl -qw net/ipv4/conf/eth0/arp_notify=1 net/ipv6/conf/lo/disable_ipv6=0 net/ipv6/conf/eth0/disable_ipv6=0 net/ipv6/conf/eth0/accept_dad=0 net/ipv6/conf/eth0/enhanced_dad=0 net/ipv6/conf/eth0/keep_addr_on_down=1 net/ipv6/conf/eth0/ndisc_notify=1 net/ipv6/conf/eth0/hop_limit=9
ip -n web link set lo up
ip -n web link set eth0 up
ip -n web address add 10.1.0.2/24 broadcast + dev eth0
ip -n web address add fd00:1::2/64 nodad dev eth0
ip -n web route append 192.0.2.0/24 via 10.1.0.9 dev eth0 proto 110 metric 7 mtu 1400 advmss 1300
ip -n web route append 198.51.100.0/24 via 10.1.0.1 dev eth0 proto 110 table 100
ip -n web route append 203.0.113.0/24 dev eth0 proto 110 scope link
ip -n web -6 route append 2001:db8::/32 via fd00:1::9 dev eth0 proto 110 metric 2048 mtu 1280
