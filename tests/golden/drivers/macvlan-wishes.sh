ip link add link eth1 name eth1 address 02:00:00:00:00:32 mtu 1280 netns web type macvlan mode bridge
ip -n web link set eth1 alias netplug/lan/web/eth1
ip netns exec web sysctl -qw net/ipv4/conf/eth1/arp_notify=1
ip -n web link set lo up
ip -n web link set eth1 up
ip -n web address add 10.1.0.2/24 broadcast + dev eth1
