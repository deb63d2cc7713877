## setup
sysctl -qw net.ipv4.ip_forward=1
sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null || true
ip link add br0 type bridge
ip link set br0 up
ip address add 10.{{net}}.0.1/24 dev br0
number=2
for name in red blue; do
    ip link add to-$name type veth peer name eth0 netns $name
    ip link set to-$name master br0 up
    ip -n $name link set eth0 up
    ip -n $name address add 10.{{net}}.0.$number/24 dev eth0
    ip -n $name route add default via 10.{{net}}.0.1
    number=$((number + 1))
done
nft add table ip nat
nft add chain ip nat postrouting '{ type nat hook postrouting priority srcnat; }'
nft add rule ip nat postrouting ip saddr 10.{{net}}.0.0/24 oifname eth0 masquerade

## publish
nft add chain ip nat prerouting '{ type nat hook prerouting priority dstnat; }'
nft add rule ip nat prerouting ip daddr 192.0.2.2 tcp dport {{port}} dnat to 10.{{net}}.0.2:80

## local
nft add chain ip nat output '{ type nat hook output priority -100; }'
nft add rule ip nat output ip daddr 192.0.2.2 tcp dport {{port}} dnat to 10.{{net}}.0.2:80

## hairpin
nft add rule ip nat postrouting ip saddr 10.{{net}}.0.0/24 ip daddr 10.{{net}}.0.2 tcp dport 80 masquerade
