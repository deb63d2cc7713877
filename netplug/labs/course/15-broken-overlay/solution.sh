# Which faults there are depends on the seed: netplug lab hint names them one by one.

## setup in host
# tunnel.sh NODE VNI PORT LOCAL: the tunnel's end in NODE, made anew, and what it must know
cat > /run/tunnel.sh <<'END'
set -e
if [ "$1" = one ]; then mac=02:00:0a:1e:00:03 far=192.0.2.12; else mac=02:00:0a:1e:00:02 far=192.0.2.11; fi
ip -n "$1" link del vxlan0 2>/dev/null || true
ip -n "$1" link add vxlan0 type vxlan id "$2" dstport "$3" local "$4" nolearning
ip -n "$1" link set vxlan0 master br0 up
bridge -n "$1" link set dev vxlan0 neigh_suppress on learning off
bridge -n "$1" fdb append $mac dev vxlan0 dst $far
bridge -n "$1" fdb replace $mac dev vxlan0 master static
END
for pair in one:red:2:3 two:blue:3:2; do
    IFS=: read -r node name own far <<END
$pair
END
    ip -n $node link add br0 address 02:00:00:00:00:0$own type bridge
    ip -n $node link set br0 up
    ip -n $node link add to-$name type veth peer name eth0 netns $name
    ip -n $node link set to-$name master br0 up
    ip -n $name link set eth0 address 02:00:0a:1e:00:0$own mtu 1450 up
    ip -n $name address add 10.30.0.$own/24 dev eth0
    ip -n $node neigh replace 10.30.0.$far lladdr 02:00:0a:1e:00:0$far dev br0 nud permanent
done
sh /run/tunnel.sh one 42 4789 192.0.2.11
sh /run/tunnel.sh two 42 4789 192.0.2.12
