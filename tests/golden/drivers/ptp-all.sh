ip link add vethe033f203981 address 8a:91:f3:c4:32:b0 mtu 1400 type veth peer name eth0 address 8e:4e:9d:da:74:f3 mtu 1400 netns web
ip link set vethe033f203981 alias netplug/lan/web/eth0 up
tc qdisc add dev vethe033f203981 root handle 1: tbf rate 8000000bit burst 100000 limit 125000
ip link add ifb1ef53ce2db99 mtu 1400 type ifb
ip link set ifb1ef53ce2db99 alias netplug/lan/web/eth0 up
tc qdisc add dev ifb1ef53ce2db99 root handle 1: tbf rate 4000000bit burst 50000 limit 62500
tc qdisc add dev vethe033f203981 ingress
tc filter add dev vethe033f203981 parent ffff: protocol all prio 1 u32 match u32 0 0 flowid 1: action mirred egress redirect dev ifb1ef53ce2db99
sysctl -qw net/ipv4/ip_forward=1
sysctl -qw net/ipv6/conf/all/forwarding=1
ip address add 10.1.0.1/32 dev vethe033f203981
ip address add fd00:1::1/128 nodad dev vethe033f203981
ip route append 10.1.0.2/32 dev vethe033f203981 proto 110
ip -6 route append fd00:1::2/128 dev vethe033f203981 proto 110
# the frame: tests/golden/nft
# only where such a chain drops by policy (Docker, ufw, firewalld):
# nft 'insert rule ip filter FORWARD oifname "vethe033f203981" accept comment "netplug: vethe033f203981 (IPv4)"'
# nft 'insert rule ip filter FORWARD iifname "vethe033f203981" accept comment "netplug: vethe033f203981 (IPv4)"'
# the frame: tests/golden/nft
# only where such a chain drops by policy (Docker, ufw, firewalld):
# nft 'insert rule ip6 filter FORWARD oifname "vethe033f203981" accept comment "netplug: vethe033f203981 (IPv6)"'
# nft 'insert rule ip6 filter FORWARD iifname "vethe033f203981" accept comment "netplug: vethe033f203981 (IPv6)"'
nft 'add element ip netplug masq { 10.1.0.0/24 comment "netplug: ptpcb1e472c347" }'
nft 'add element ip netplug local { 10.1.0.0/24 . 10.1.0.0/24 comment "netplug: ptpcb1e472c347", 10.1.0.0/24 . 224.0.0.0/4 comment "netplug: ptpcb1e472c347" }'
nft 'add element ip6 netplug masq { fd00:1::/64 comment "netplug: ptpcb1e472c347" }'
nft 'add element ip6 netplug local { fd00:1::/64 . fd00:1::/64 comment "netplug: ptpcb1e472c347", fd00:1::/64 . ff00::/8 comment "netplug: ptpcb1e472c347" }'
sysctl -qw net/ipv4/conf/vethe033f203981/route_localnet=1
nft 'create element ip netplug publish_any { tcp . 8080 comment "netplug/6006acfa6e5fc78848c984c3" : 10.1.0.2 . 80 }'
nft 'create element ip6 netplug publish_any { tcp . 8080 comment "netplug/6006acfa6e5fc78848c984c3" : fd00:1::2 . 80 }'
ip netns exec web sysctl -qw net/ipv4/conf/eth0/arp_notify=1 net/ipv6/conf/lo/disable_ipv6=0 net/ipv6/conf/eth0/disable_ipv6=0 net/ipv6/conf/eth0/accept_dad=0 net/ipv6/conf/eth0/enhanced_dad=0 net/ipv6/conf/eth0/keep_addr_on_down=1 net/ipv6/conf/eth0/ndisc_notify=1
ip -n web link set lo up
ip -n web link set eth0 up
ip -n web address add 10.1.0.2/32 dev eth0
ip -n web address add fd00:1::2/128 nodad dev eth0
ip -n web route append 10.1.0.1/32 dev eth0 proto 110 scope link
ip -n web -6 route append fd00:1::1/128 dev eth0 proto 110
ip -n web route append 10.1.0.0/24 via 10.1.0.1 dev eth0 proto 110
ip -n web -6 route append fd00:1::/64 via fd00:1::1 dev eth0 proto 110
ip -n web route append 0.0.0.0/0 via 10.1.0.1 dev eth0 proto 110
ip -n web route append 198.51.100.0/24 via 10.1.0.1 dev eth0 proto 110 table 100
ip -n web -6 route append ::/0 via fd00:1::1 dev eth0 proto 110
