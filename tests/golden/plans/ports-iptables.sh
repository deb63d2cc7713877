ip link add br0 address d6:5d:bb:39:6d:9b type bridge
ip link set br0 alias netplug/bridge/br0 up
sysctl -qw net/ipv6/conf/br0/accept_ra=0 net/ipv6/conf/br0/accept_dad=0
ip link add vethe033f203981 address 8a:91:f3:c4:32:b0 mtu 1500 master br0 type veth peer name eth0 address 8e:4e:9d:da:74:f3 mtu 1500 netns web
ip link set vethe033f203981 alias netplug/lan/web/eth0 up
bridge link set dev vethe033f203981 hairpin on isolated off
sysctl -qw net/ipv4/ip_forward=1
sysctl -qw net/ipv6/conf/up0/accept_ra=2 net/ipv6/conf/all/forwarding=1
ip address add 10.1.0.1/24 broadcast + dev br0
ip address add fd00:1::1/64 nodad dev br0
# the frame: tests/golden/iptables
iptables-legacy -w -t filter -A NETPLUG-POLICY '!' -i br0 -o br0 -m comment --comment netplug/policy/br0 -j NETPLUG-OUTSIDE
iptables-legacy -w -t filter -A NETPLUG-TO-BRIDGE -o br0 -m comment --comment netplug/policy/br0 -j DROP
iptables-legacy -w -t filter -A NETPLUG-FROM-BRIDGE -i br0 -m comment --comment netplug/policy/br0 -j DROP
iptables-legacy -w -t filter -I NETPLUG-OUTSIDE -i br0 -m comment --comment netplug/policy/br0 -j RETURN
iptables-legacy -w -t filter -I FORWARD -i br0 -m comment --comment netplug/accept/br0 -j NETPLUG-ACCEPT
iptables-legacy -w -t filter -I FORWARD -o br0 -m comment --comment netplug/accept/br0 -j NETPLUG-ACCEPT
iptables-legacy -w -t filter -I INPUT -i br0 -p udp -m udp --dport 53 -m comment --comment netplug/accept/br0 -j ACCEPT
iptables-legacy -w -t filter -I INPUT -i br0 -p tcp -m tcp --dport 53 -m comment --comment netplug/accept/br0 -j ACCEPT
# the frame: tests/golden/iptables
ip6tables-legacy -w -t filter -A NETPLUG-POLICY '!' -i br0 -o br0 -m comment --comment netplug/policy/br0 -j NETPLUG-OUTSIDE
ip6tables-legacy -w -t filter -A NETPLUG-TO-BRIDGE -o br0 -m comment --comment netplug/policy/br0 -j DROP
ip6tables-legacy -w -t filter -A NETPLUG-FROM-BRIDGE -i br0 -m comment --comment netplug/policy/br0 -j DROP
ip6tables-legacy -w -t filter -I NETPLUG-OUTSIDE -i br0 -m comment --comment netplug/policy/br0 -j RETURN
ip6tables-legacy -w -t filter -I FORWARD -i br0 -m comment --comment netplug/accept/br0 -j NETPLUG-ACCEPT
ip6tables-legacy -w -t filter -I FORWARD -o br0 -m comment --comment netplug/accept/br0 -j NETPLUG-ACCEPT
ip6tables-legacy -w -t filter -I INPUT -i br0 -p udp -m udp --dport 53 -m comment --comment netplug/accept/br0 -j ACCEPT
ip6tables-legacy -w -t filter -I INPUT -i br0 -p tcp -m tcp --dport 53 -m comment --comment netplug/accept/br0 -j ACCEPT
ip6tables-legacy -w -t filter -I INPUT -i br0 -p icmpv6 -m icmp6 --icmpv6-type 135 -m comment --comment netplug/accept/br0 -j ACCEPT
ip6tables-legacy -w -t filter -I INPUT -i br0 -p icmpv6 -m icmp6 --icmpv6-type 136 -m comment --comment netplug/accept/br0 -j ACCEPT
iptables-legacy -w -t nat -A NETPLUG-POST -s 10.1.0.0/24 -d 10.1.0.0/24 -m conntrack --ctstate DNAT -m comment --comment netplug/subnet/br0/10.1.0.0/24 -j MASQUERADE
iptables-legacy -w -t nat -A NETPLUG-POST -s 10.1.0.0/24 '!' -d 10.1.0.0/24 -m comment --comment netplug/subnet/br0/10.1.0.0/24 -j MASQUERADE
ip6tables-legacy -w -t nat -A NETPLUG-POST -s fd00:1::/64 -d fd00:1::/64 -m conntrack --ctstate DNAT -m comment --comment netplug/subnet/br0/fd00:1::/64 -j MASQUERADE
ip6tables-legacy -w -t nat -A NETPLUG-POST -s fd00:1::/64 '!' -d fd00:1::/64 -m comment --comment netplug/subnet/br0/fd00:1::/64 -j MASQUERADE
ip netns exec web sysctl -qw net/ipv4/conf/eth0/arp_notify=1 net/ipv6/conf/lo/disable_ipv6=0 net/ipv6/conf/eth0/disable_ipv6=0 net/ipv6/conf/eth0/accept_dad=0 net/ipv6/conf/eth0/enhanced_dad=0 net/ipv6/conf/eth0/keep_addr_on_down=1 net/ipv6/conf/eth0/ndisc_notify=1
ip -n web link set lo up
ip -n web link set eth0 up
ip -n web address add 10.1.0.2/24 broadcast + dev eth0
ip -n web address add fd00:1::2/64 nodad dev eth0
ip -n web route append 0.0.0.0/0 via 10.1.0.1 dev eth0 proto 110
ip -n web -6 route append ::/0 via fd00:1::1 dev eth0 proto 110
sysctl -qw net/ipv4/conf/br0/route_localnet=1
iptables-legacy -w -t nat -A NETPLUG-DNAT -p tcp -m tcp --dport 8080 -m comment --comment netplug/6006acfa6e5fc78848c984c3 -j DNAT --to-destination 10.1.0.2:80
iptables-legacy -w -t nat -A NETPLUG-DNAT -p udp -m udp --dport 53 -m comment --comment netplug/6006acfa6e5fc78848c984c3 -j DNAT --to-destination 10.1.0.2:53
iptables-legacy -w -t nat -A NETPLUG-DNAT -p sctp -m sctp --dport 9 -m comment --comment netplug/6006acfa6e5fc78848c984c3 -j DNAT --to-destination 10.1.0.2:9
ip6tables-legacy -w -t nat -A NETPLUG-DNAT -p tcp -m tcp --dport 8080 -m comment --comment netplug/6006acfa6e5fc78848c984c3 -j DNAT --to-destination '[fd00:1::2]:80'
ip6tables-legacy -w -t nat -A NETPLUG-DNAT -p udp -m udp --dport 53 -m comment --comment netplug/6006acfa6e5fc78848c984c3 -j DNAT --to-destination '[fd00:1::2]:53'
ip6tables-legacy -w -t nat -A NETPLUG-DNAT -p sctp -m sctp --dport 9 -m comment --comment netplug/6006acfa6e5fc78848c984c3 -j DNAT --to-destination '[fd00:1::2]:9'
