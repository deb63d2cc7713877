ip link add np-web address e2:ef:4b:2d:6e:09 mtu 1450 type bridge
ip link set np-web alias netplug/bridge/np-web up
sysctl -qw net/ipv6/conf/np-web/accept_ra=0 net/ipv6/conf/np-web/accept_dad=0
ip link add veth1849efa7211 address 56:c4:6a:4f:02:d4 mtu 1450 master np-web type veth peer name eth0 address 0e:47:a9:5a:ca:4e mtu 1450 netns web
ip link set veth1849efa7211 alias netplug/web/web/eth0 up
bridge link set dev veth1849efa7211 hairpin on isolated off
sysctl -qw net/ipv4/ip_forward=1
sysctl -qw net/ipv6/conf/all/forwarding=1
ip address add 10.200.7.1/24 broadcast + dev np-web
ip address add fd00:200:0:7::1/64 nodad dev np-web
# the frame: tests/golden/nft
nft 'add element ip netplug bridges { "np-web", "vx-web" }'
nft 'add element ip netplug same { "np-web" . "np-web", "np-web" . "vx-web", "vx-web" . "np-web" }'
nft 'add element ip netplug internal { "np-web" }'
nft 'add element ip netplug unrouted { "np-web" }'
# the frame: tests/golden/nft
nft 'add element ip6 netplug bridges { "np-web", "vx-web" }'
nft 'add element ip6 netplug same { "np-web" . "np-web", "np-web" . "vx-web", "vx-web" . "np-web" }'
nft 'add element ip6 netplug internal { "np-web" }'
nft 'add element ip6 netplug unrouted { "np-web" }'
nft 'add element ip netplug local { 10.200.7.0/24 . 10.200.0.0/16 comment "netplug: np-web", 10.200.7.0/24 . 224.0.0.0/4 comment "netplug: np-web" }'
nft 'add element ip6 netplug local { fd00:200:0:7::/64 . fd00:200::/48 comment "netplug: np-web", fd00:200:0:7::/64 . ff00::/8 comment "netplug: np-web" }'
ip netns exec web sysctl -qw net/ipv4/conf/eth0/arp_notify=1 net/ipv6/conf/lo/disable_ipv6=0 net/ipv6/conf/eth0/disable_ipv6=0 net/ipv6/conf/eth0/accept_dad=0 net/ipv6/conf/eth0/enhanced_dad=0 net/ipv6/conf/eth0/keep_addr_on_down=1 net/ipv6/conf/eth0/ndisc_notify=1
ip -n web link set lo up
ip -n web link set eth0 up
ip -n web address add 10.200.7.2/24 broadcast + dev eth0
ip -n web address add fd00:200:0:7::2/64 nodad dev eth0
