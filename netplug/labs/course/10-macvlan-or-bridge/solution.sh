## macvlan
ip link add link eth0 name eth0 netns red type macvlan mode bridge
ip -n red link set eth0 up
ip -n red address add 192.0.2.{{host}}/24 dev eth0
ip -n red route add default via 192.0.2.1

## unseen
ip netns exec red ping -c 1 192.0.2.3
ip -n neighbour neigh

## shim
ip link add link eth0 name shim type macvlan mode bridge
ip link set shim up
ip address add 192.0.2.200/32 dev shim
ip route add 192.0.2.{{host}}/32 dev shim
