ip link add br0 address d6:5d:bb:39:6d:9b type bridge
ip link set br0 alias netplug/bridge/br0 up
sysctl -qw net/ipv6/conf/br0/accept_ra=0 net/ipv6/conf/br0/accept_dad=0
ip link add vethe033f203981 address 8a:91:f3:c4:32:b0 mtu 1500 master br0 type veth peer name eth0 address 8e:4e:9d:da:74:f3 mtu 1500 netns web
ip link set vethe033f203981 alias netplug/lan/web/eth0 up
ip netns exec web sysctl -qw net/ipv4/conf/eth0/arp_notify=1
ip -n web link set lo up
