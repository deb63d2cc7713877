ip link add br0 address d6:5d:bb:39:6d:9b type bridge vlan_filtering 1
ip link set br0 alias netplug/bridge/br0 up
sysctl -qw net/ipv6/conf/br0/accept_ra=0 net/ipv6/conf/br0/accept_dad=0
ip link add vethe033f203981 address 8a:91:f3:c4:32:b0 mtu 1500 master br0 type veth peer name eth0 address 8e:4e:9d:da:74:f3 mtu 1500 netns web
ip link set vethe033f203981 alias netplug/lan/web/eth0 up
bridge vlan del dev vethe033f203981 vid 1
bridge vlan add dev vethe033f203981 vid 10 pvid untagged
sysctl -qw net/ipv4/ip_forward=1
ip link add veth177668c05be address ea:21:f2:90:10:ac mtu 1500 master br0 type veth peer name br0.10 address ba:f4:02:2c:fc:ef mtu 1500
ip link set veth177668c05be alias netplug/vlan/br0.10 up
ip link set br0.10 up
bridge vlan del dev veth177668c05be vid 1
bridge vlan add dev veth177668c05be vid 10 pvid untagged
ip address add 10.1.0.1/24 broadcast + dev br0.10
# the frame: tests/golden/nft
nft 'add element ip netplug bridges { "br0.10" }'
nft 'add element ip netplug same { "br0.10" . "br0.10" }'
nft 'add element ip netplug unrouted { "br0.10" }'
# only where such a chain drops by policy (Docker, ufw, firewalld):
# nft 'insert rule ip filter FORWARD oifname "br0.10" accept comment "netplug: br0.10 (IPv4)"'
# nft 'insert rule ip filter FORWARD iifname "br0.10" accept comment "netplug: br0.10 (IPv4)"'
nft 'add element ip netplug local { 10.1.0.0/24 . 10.1.0.0/24 comment "netplug: br0.10", 10.1.0.0/24 . 224.0.0.0/4 comment "netplug: br0.10" }'
ip netns exec web sysctl -qw net/ipv4/conf/eth0/arp_notify=1
ip -n web link set lo up
ip -n web link set eth0 up
ip -n web address add 10.1.0.2/24 broadcast + dev eth0
