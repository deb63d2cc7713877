nft add table ip netplug-vx-web
nft 'add set ip netplug-vx-web allowed4 { typeof ip saddr . @th,336,32; flags interval; }'
nft 'add element ip netplug-vx-web allowed4 { 192.0.2.2 . 0xac80900-0xac809ff }'
nft 'add chain ip netplug-vx-web input { type filter hook input priority -5; }'
nft 'add rule ip netplug-vx-web input meta l4proto udp th dport 4789 @th,96,24 0x1092 @th,224,16 0x0800 ip saddr . @th,336,32 @allowed4 accept comment "netplug: IPv4 of a known node 4220dfb6"'
nft 'add set ip netplug-vx-web allowed6 { typeof ip saddr . @th,304,128; flags interval; }'
nft 'add element ip netplug-vx-web allowed6 { 192.0.2.2 . 0xfd000200000000090000000000000000-0xfd00020000000009ffffffffffffffff }'
nft 'add rule ip netplug-vx-web input meta l4proto udp th dport 4789 @th,96,24 0x1092 @th,224,16 0x86dd ip saddr . @th,304,128 @allowed6 accept comment "netplug: IPv6 of a known node 64791740"'
nft 'add rule ip netplug-vx-web input meta l4proto udp th dport 4789 @th,96,24 0x1092 drop comment "netplug: nobody else sends into the tunnel cc84d21a"'
ip link add vx-web address de:9d:5e:37:c3:a6 mtu 1450 type vxlan id 4242 local 192.0.2.1 dstport 4789 nolearning
ip link set vx-web alias netplug/web/tunnel up
sysctl -qw net/ipv6/conf/vx-web/accept_ra=0 net/ipv6/conf/vx-web/accept_dad=0
sysctl -qw net/ipv4/ip_forward=1 net/ipv6/conf/all/forwarding=1
ip address add 10.200.7.0/32 dev vx-web
ip address add fd00:200:0:7::/128 nodad dev vx-web
ip neigh replace 10.200.9.0 lladdr 02:00:00:00:00:09 dev vx-web nud permanent
ip neigh replace fd00:200:0:9:: lladdr 02:00:00:00:00:09 dev vx-web nud permanent
bridge fdb append 02:00:00:00:00:09 dev vx-web dst 192.0.2.2 self permanent
ip route replace 10.200.9.0/24 via 10.200.9.0 dev vx-web onlink proto 110
ip -6 route replace fd00:200:0:9::/64 via fd00:200:0:9:: dev vx-web onlink proto 110
