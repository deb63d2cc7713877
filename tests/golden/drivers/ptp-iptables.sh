ip link add vethe033f203981 address 8a:91:f3:c4:32:b0 mtu 1500 type veth peer name eth0 address 8e:4e:9d:da:74:f3 mtu 1500 netns web
ip link set vethe033f203981 alias netplug/lan/web/eth0 up
sysctl -qw net/ipv4/ip_forward=1
ip address add 10.1.0.1/32 dev vethe033f203981
ip route append 10.1.0.2/32 dev vethe033f203981 proto 110
# the frame: tests/golden/iptables
iptables-legacy -w -t filter -I FORWARD -i vethe033f203981 -m comment --comment netplug/accept/vethe033f203981 -j NETPLUG-ACCEPT
iptables-legacy -w -t filter -I FORWARD -o vethe033f203981 -m comment --comment netplug/accept/vethe033f203981 -j NETPLUG-ACCEPT
iptables-legacy -w -t filter -I INPUT -i vethe033f203981 -p udp -m udp --dport 53 -m comment --comment netplug/accept/vethe033f203981 -j ACCEPT
iptables-legacy -w -t filter -I INPUT -i vethe033f203981 -p tcp -m tcp --dport 53 -m comment --comment netplug/accept/vethe033f203981 -j ACCEPT
iptables-legacy -w -t nat -A NETPLUG-POST -s 10.1.0.0/24 -d 10.1.0.0/24 -m conntrack --ctstate DNAT -m comment --comment netplug/subnet/ptpcb1e472c347/10.1.0.0/24 -j MASQUERADE
iptables-legacy -w -t nat -A NETPLUG-POST -s 10.1.0.0/24 '!' -d 10.1.0.0/24 -m comment --comment netplug/subnet/ptpcb1e472c347/10.1.0.0/24 -j MASQUERADE
sysctl -qw net/ipv4/conf/vethe033f203981/route_localnet=1
iptables-legacy -w -t nat -A NETPLUG-DNAT -p tcp -m tcp --dport 8080 -m comment --comment netplug/6006acfa6e5fc78848c984c3 -j DNAT --to-destination 10.1.0.2:80
ip netns exec web sysctl -qw net/ipv4/conf/eth0/arp_notify=1
ip -n web link set lo up
ip -n web link set eth0 up
ip -n web address add 10.1.0.2/32 dev eth0
ip -n web route append 10.1.0.1/32 dev eth0 proto 110 scope link
ip -n web route append 10.1.0.0/24 via 10.1.0.1 dev eth0 proto 110
