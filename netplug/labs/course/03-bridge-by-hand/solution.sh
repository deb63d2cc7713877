## bridge
ip link add br0 type bridge
ip link set br0 up

## ports
for name in red blue green; do
    ip link add to-$name type veth peer name eth0 netns $name
    ip link set to-$name master br0 up
    ip -n $name link set eth0 up
done

## talk
ip -n red address add 10.{{net}}.0.1/24 dev eth0
ip -n blue address add 10.{{net}}.0.2/24 dev eth0
ip -n green address add 10.{{net}}.0.3/24 dev eth0
ip netns exec red ping -c 1 10.{{net}}.0.2
ip netns exec red ping -c 1 10.{{net}}.0.3

## host
ip address add 10.{{net}}.0.254/24 dev br0
ping -c 1 10.{{net}}.0.1
# then, in red: ip -n red neigh
