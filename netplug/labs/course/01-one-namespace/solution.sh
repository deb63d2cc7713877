## make
ip netns add red

## loopback
ip -n red link set lo up

## alone
ip -n red address add 192.0.2.1/32 dev lo
# answer: links = 1
