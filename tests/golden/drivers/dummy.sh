ip -n web link add name eth0 address 8e:4e:9d:da:74:f3 mtu 1500 type dummy
ip -n web link set eth0 alias netplug/lan/web/eth0
ip netns exec web sysctl -qw net/ipv4/conf/eth0/arp_notify=1
ip -n web link set lo up
ip -n web link set eth0 up
ip -n web address add 10.1.0.2/24 broadcast + dev eth0
