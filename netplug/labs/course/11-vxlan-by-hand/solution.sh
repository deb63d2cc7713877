## setup in one
ip link add br0 type bridge
ip link set br0 up
ip link add to-red type veth peer name eth0 netns red
ip link set to-red master br0 up
ip -n red link set eth0 up
ip -n red address add 10.{{net}}.0.2/24 dev eth0

## setup in two
ip link add br0 type bridge
ip link set br0 up
ip link add to-blue type veth peer name eth0 netns blue
ip link set to-blue master br0 up
ip -n blue link set eth0 up
ip -n blue address add 10.{{net}}.0.3/24 dev eth0

## tunnel in one
ip link add vxlan0 type vxlan id {{vni}} local 192.0.2.11 dstport 4789 nolearning
ip link set vxlan0 master br0 up

## tunnel in two
ip link add vxlan0 type vxlan id {{vni}} local 192.0.2.12 dstport 4789 nolearning
ip link set vxlan0 master br0 up

## entries in one
mac=$(ip netns exec blue cat /sys/class/net/eth0/address)
bridge fdb append "$mac" dev vxlan0 dst 192.0.2.12
bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst 192.0.2.12

## entries in two
mac=$(ip netns exec red cat /sys/class/net/eth0/address)
bridge fdb append "$mac" dev vxlan0 dst 192.0.2.11
bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst 192.0.2.11

## mtu in host
ip -n red link set eth0 mtu 1450
ip -n blue link set eth0 mtu 1450
