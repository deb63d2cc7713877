## setup
for node in one two three; do
    mkdir -m 700 /run/$node
    (umask 077 && cat > /run/$node/agent.toml) <<END
node = "$node"

[store]
path = "/run/cluster.db"

[overlay]
interface = "eth0"
ttl = 1
hold = 3
END
    cat > /run/$node/env <<END
export NETPLUG_RUN=/run/$node NETPLUG_STATE=/run/$node/state NETCONFPATH=/run/$node/net.d
END
done

## first in one
. /run/one/env
netplug agent start --config /run/one/agent.toml
netplug network create lan --driver overlay --subnet 10.{{net}}.0.0/16 -o vni={{vni}}
netplug connect red lan

## second in two
. /run/two/env
netplug agent start --config /run/two/agent.toml
netplug network create lan --driver overlay --subnet 10.{{net}}.0.0/16 -o vni={{vni}}
netplug connect blue lan
. /run/one/env
until netplug overlay peers lan | grep -q "two .* 1  *3 of 3"; do sleep 0.1; done

## entries in one
ip route show dev vx-lan
ip neigh show dev vx-lan
bridge fdb show dev vx-lan

## death in three
. /run/three/env
netplug agent start --config /run/three/agent.toml
netplug network create lan --driver overlay --subnet 10.{{net}}.0.0/16 -o vni={{vni}}
netplug connect green lan
for node in one two; do
    until bridge -n $node fdb show dev vx-lan | grep -q 192.0.2.13; do sleep 0.05; done
done

## death in three
. /run/three/env
kill -9 "$(netplug agent status | awk '$1 == "pid" { print $2 }')"
for node in one two; do
    while bridge -n $node fdb show dev vx-lan | grep -q 192.0.2.13; do sleep 0.05; done
done
