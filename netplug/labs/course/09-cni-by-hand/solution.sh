## configure
netplug install --no-agent --bin-dir /run/cni
cat > /run/net.conf <<'END'
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "type": "netplug",
  "driver": "bridge",
  "bridge": "pods0",
  "isDefaultGateway": true,
  "ipMasq": true,
  "ipam": {"type": "netplug", "ranges": [[{"subnet": "10.99.0.0/16"}]]}
}
END

## add
export CNI_PATH=/run/cni CNI_IFNAME=eth0
CNI_COMMAND=ADD CNI_CONTAINERID=red CNI_NETNS=/run/netns/red /run/cni/netplug \
    < /run/net.conf > /run/red.json

## check
export CNI_PATH=/run/cni CNI_IFNAME=eth0 CNI_CONTAINERID=red CNI_NETNS=/run/netns/red
python3 - > /run/result.json <<'END'
import json
config = json.load(open("/run/net.conf"))
config["prevResult"] = json.load(open("/run/red.json"))
print(json.dumps(config))
END
CNI_COMMAND=CHECK /run/cni/netplug < /run/result.json
ip -n red route del default
CNI_COMMAND=CHECK /run/cni/netplug < /run/result.json > /run/check.log || true
ip -n red route add default via 10.99.0.1

## delete
export CNI_PATH=/run/cni CNI_IFNAME=eth0 CNI_CONTAINERID=blue CNI_NETNS=/run/netns/blue
CNI_COMMAND=ADD /run/cni/netplug < /run/net.conf > /run/blue.json
CNI_COMMAND=DEL /run/cni/netplug < /run/net.conf
first=$?
CNI_COMMAND=DEL /run/cni/netplug < /run/net.conf
echo "$first $?" > /run/deleted
