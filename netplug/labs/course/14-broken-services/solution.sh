# Which faults there are depends on the seed: netplug lab hint names them one by one.

## setup
sysctl -qw net.ipv4.ip_forward=1
sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null || true
ip link add br0 type bridge
ip link set br0 up
ip address add 10.20.0.1/24 dev br0
number=2
for name in red blue; do
    ip link add to-$name type veth peer name eth0 netns $name
    ip link set to-$name master br0 up
    ip -n $name link set lo up
    ip -n $name link set eth0 up
    ip -n $name address add 10.20.0.$number/24 dev eth0
    ip -n $name route add default via 10.20.0.1
    mkdir -p /etc/netns/$name
    printf 'nameserver 10.20.0.1\nsearch lab\n' > /etc/netns/$name/resolv.conf
    number=$((number + 1))
done
nft -f - <<'END'
table ip nat {
    chain published {
        type nat hook prerouting priority dstnat;
        ip daddr 192.0.2.2 tcp dport 8080 dnat to 10.20.0.2:80
    }
    chain masq {
        type nat hook postrouting priority srcnat;
        ip saddr 10.20.0.0/24 oifname "eth0" masquerade
    }
    chain hairpin {
        type nat hook postrouting priority 101;
        ip saddr 10.20.0.0/24 ip daddr 10.20.0.2 masquerade
    }
}
table ip filter {
    chain forward {
        type filter hook forward priority filter; policy accept;
        tcp dport 80 accept
    }
}
END
cat > /run/zone <<'END'
red.lab. 60 IN A 10.20.0.2
blue.lab. 60 IN A 10.20.0.3
END
for number in $(seq 12); do echo "many.lab. 60 IN A 10.20.1.$number" >> /run/zone; done
cat > /run/dns.sh <<'END'
[ ! -e /run/dns.pid ] || kill "$(cat /run/dns.pid)" 2>/dev/null
while [ -n "$(ss -Hlun 'sport = :53')$(ss -Hltn 'sport = :53')" ]; do sleep 0.05; done
python3 -m dnslib.zoneresolver --zone /run/zone --address 10.20.0.1 --udplen 200 --tcp \
    > /run/dns.log 2>&1 < /dev/null &
echo $! > /run/dns.pid
until [ -n "$(ss -Hlun 'sport = :53')" ] && [ -n "$(ss -Hltn 'sport = :53')" ]; do sleep 0.05; done
END
sh /run/dns.sh
