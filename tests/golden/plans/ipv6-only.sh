ip link add br0 address d6:5d:bb:39:6d:9b type bridge
ip link set br0 alias netplug/bridge/br0 up
sysctl -qw net/ipv6/conf/br0/accept_ra=0 net/ipv6/conf/br0/accept_dad=0
ip link add vethe033f203981 address 8a:91:f3:c4:32:b0 mtu 1500 master br0 type veth peer name eth0 address 8e:4e:9d:da:74:f3 mtu 1500 netns web
ip link set vethe033f203981 alias netplug/lan/web/eth0 up
sysctl -qw net/ipv6/conf/up0/accept_ra=2 net/ipv6/conf/all/forwarding=1
ip address add fd00:1::1/64 nodad dev br0
# the frame: tests/golden/nft
nft 'add element ip6 netplug bridges { "br0" }'
nft 'add element ip6 netplug same { "br0" . "br0" }'
nft 'add element ip6 netplug unrouted { "br0" }'
# only where such a chain drops by policy (Docker, ufw, firewalld):
# nft 'insert rule ip6 filter FORWARD oifname "br0" accept comment "netplug: br0 (IPv6)"'
# nft 'insert rule ip6 filter FORWARD iifname "br0" accept comment "netplug: br0 (IPv6)"'
nft 'add element ip6 netplug masq { fd00:1::/64 comment "netplug: br0" }'
nft 'add element ip6 netplug local { fd00:1::/64 . fd00:1::/64 comment "netplug: br0", fd00:1::/64 . ff00::/8 comment "netplug: br0" }'
ip netns exec web sysctl -qw net/ipv4/conf/eth0/arp_notify=1 net/ipv6/conf/lo/disable_ipv6=0 net/ipv6/conf/eth0/disable_ipv6=0 net/ipv6/conf/eth0/accept_dad=0 net/ipv6/conf/eth0/enhanced_dad=0 net/ipv6/conf/eth0/keep_addr_on_down=1 net/ipv6/conf/eth0/ndisc_notify=1
ip -n web link set lo up
ip -n web link set eth0 up
ip -n web address add fd00:1::2/64 nodad dev eth0
ip -n web -6 route append ::/0 via fd00:1::1 dev eth0 proto 110
