## setup in blue
ip address add 10.200.0.1/32 dev lo

## default in host
ip -n red route add default via 10.{{net}}.0.1
ip -n blue route add default via 10.{{far}}.0.1

## forward in gate
sysctl -w net.ipv4.ip_forward=1

## beyond in gate
ip route add 10.200.0.0/24 via 10.{{far}}.0.2
ip route get 10.200.0.1
