## cable in host
ip link add to-blue netns red type veth peer name to-red netns blue

## address
ip -n red address add 10.{{net}}.0.1/24 dev to-blue
ip -n blue address add 10.{{net}}.0.2/24 dev to-red
ip -n red link set to-blue up
ip -n blue link set to-red up
ip netns exec red ping -c 1 10.{{net}}.0.2

## neighbour
ip -n red neigh
# then: netplug lab check --answer mac=...
