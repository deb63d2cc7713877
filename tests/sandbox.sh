#!/bin/sh
# sandbox.sh COMMAND...: runs COMMAND in network and mount namespaces of its own, so that
# nothing of the machine is touched. Root needs nothing else; anyone else gets a user
# namespace as well. Exit status 3: such namespaces cannot be had, and stderr says why.
set -eu

explain() {
    echo "sandbox: this user may not make user, mount and network namespaces here:"
    if [ "$(cat /proc/sys/kernel/apparmor_restrict_unprivileged_userns 2>/dev/null)" = 1 ]; then
        echo "  AppArmor forbids it (kernel.apparmor_restrict_unprivileged_userns=1, Ubuntu 23.10 and newer)."
    elif [ "$(cat /proc/sys/kernel/unprivileged_userns_clone 2>/dev/null)" = 0 ]; then
        echo "  the kernel forbids it (kernel.unprivileged_userns_clone=0)."
    elif [ "$(cat /proc/sys/user/max_user_namespaces 2>/dev/null)" = 0 ]; then
        echo "  the kernel allows none (user.max_user_namespaces=0)."
    else
        echo "  $1"
    fi
}

if [ "${1:-}" != --inside ]; then
    if [ "$(id -u)" = 0 ]; then
        flags='--mount --net --propagation private'
    else
        flags='--map-root-user --mount --net --propagation private'
    fi
    # Entering can succeed and still give no capabilities (AppArmor), so try a mount.
    # shellcheck disable=SC2086
    if ! refusal=$(unshare $flags mount -t tmpfs sandbox /run 2>&1); then
        explain "$refusal" >&2
        exit 3
    fi
    # shellcheck disable=SC2086
    exec unshare $flags sh "$0" --inside "$@"
fi
shift

# Private, empty copies of every folder that netplug or its tests write to. A missing mount
# point cannot be made on the machine: overlays with their upper layer in memory hold it.
mount -t tmpfs -o mode=755 sandbox /run
for folder in /etc /var/lib; do
    layer=/run/.sandbox$folder
    mkdir -p "$layer/upper" "$layer/work"
    mount -t overlay -o "lowerdir=$folder,upperdir=$layer/upper,workdir=$layer/work" sandbox "$folder"
done
for folder in /run/netns /run/netplug /etc/cni /etc/netplug /etc/netns /var/lib/cni /var/lib/netplug; do
    mkdir -p "$folder"
    mount -t tmpfs -o mode=755 sandbox "$folder"
done
mount --make-shared /run/netns # what the first `ip netns add` would do
ip link set lo up

unset XDG_RUNTIME_DIR # its folder was below /run
# In a user namespace the state lies in the runtime folder of the user outside.
mkdir -p -m 700 "/run/user/$(awk 'NR == 1 { print $2 }' /proc/self/uid_map)"
mkdir -m 1777 /run/tmp
export TMPDIR=/run/tmp
NETPLUG_SANDBOX=$(readlink /proc/self/ns/net)
export NETPLUG_SANDBOX
exec "$@"
