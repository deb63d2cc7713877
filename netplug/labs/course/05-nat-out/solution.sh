## setup
sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null || true
ip link add br0 type bridge
ip link set br0 up
ip address add 10.{{net}}.0.1/24 dev br0
ip link add to-red type veth peer name eth0 netns red
ip link set to-red master br0 up
ip -n red link set eth0 up
ip -n red address add 10.{{net}}.0.2/24 dev eth0
ip -n red route add default via 10.{{net}}.0.1

## forward
sysctl -w net.ipv4.ip_forward=1

## masquerade
nft add table ip nat
nft add chain ip nat postrouting '{ type nat hook postrouting priority srcnat; }'
nft add rule ip nat postrouting ip saddr 10.{{net}}.0.0/24 oifname eth0 masquerade

## inside
nft list ruleset
