## setup
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

## serve
cat > /run/netplug/zone <<END
red.lab.  60 IN A 10.{{net}}.0.2
blue.lab. 60 IN A 10.{{net}}.0.3
END
python3 -m dnslib.zoneresolver --zone /run/netplug/zone --address 10.{{net}}.0.1 \
    > /run/netplug/dns.log 2>&1 < /dev/null &
echo $! > /run/netplug/dns.pid
until [ -n "$(ss -Hlun sport = :53)" ]; do sleep 0.05; done

## resolver
mkdir -p /etc/netns/red
echo "nameserver 10.{{net}}.0.1" > /etc/netns/red/resolv.conf

## search
echo "search lab" >> /etc/netns/red/resolv.conf

## reverse
echo "3.0.{{net}}.10.in-addr.arpa. 60 IN PTR blue.lab." >> /run/netplug/zone
kill "$(cat /run/netplug/dns.pid)"
while [ -n "$(ss -Hlun sport = :53)" ]; do sleep 0.05; done
python3 -m dnslib.zoneresolver --zone /run/netplug/zone --address 10.{{net}}.0.1 \
    > /run/netplug/dns.log 2>&1 < /dev/null &
echo $! > /run/netplug/dns.pid
until [ -n "$(ss -Hlun sport = :53)" ]; do sleep 0.05; done

## netplug
netplug network create lan --subnet 10.251.0.0/24
netplug connect red lan --ifname eth1
netplug connect blue lan --ifname eth1
mkdir -p /etc/netns/blue
printf 'nameserver 10.251.0.1\nsearch lan.internal\n' > /etc/netns/blue/resolv.conf
