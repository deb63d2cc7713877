ip link add vethe033f203981 address 8a:91:f3:c4:32:b0 mtu 1500 type veth peer name eth0 address 8e:4e:9d:da:74:f3 mtu 1500 netns web
ip link set vethe033f203981 alias netplug/lan/web/eth0 up
sysctl -qw net/ipv4/ip_forward=1
ip address add 10.1.0.1/32 dev vethe033f203981
ip route append 10.1.0.2/32 dev vethe033f203981 proto 110
# the frame: tests/golden/nft
# only where such a chain drops by policy (Docker, ufw, firewalld):
# nft 'insert rule ip filter FORWARD oifname "vethe033f203981" accept comment "netplug: vethe033f203981 (IPv4)"'
# nft 'insert rule ip filter FORWARD iifname "vethe033f203981" accept comment "netplug: vethe033f203981 (IPv4)"'
nft 'add element ip netplug local { 10.1.0.0/24 . 10.1.0.0/24 comment "netplug: ptpcb1e472c347", 10.1.0.0/24 . 224.0.0.0/4 comment "netplug: ptpcb1e472c347" }'
ip netns exec web sysctl -qw net/ipv4/conf/eth0/arp_notify=1
ip -n web link set lo up
ip -n web link set eth0 up
ip -n web address add 10.1.0.2/32 dev eth0
ip -n web route append 10.1.0.1/32 dev eth0 proto 110 scope link
ip -n web route append 10.1.0.0/24 via 10.1.0.1 dev eth0 proto 110
