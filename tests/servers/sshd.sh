#!/bin/bash
# An OpenSSH server on 127.0.0.1, with keys made for it alone.
#
#     sshd.sh start DIR PORT     leaves DIR/user (a private key) and DIR/known_hosts
#     sshd.sh stop DIR
#
# Nothing of the machine's own SSH configuration is read or changed.
set -euo pipefail
action=$1 dir=$2

if [[ $action == stop ]]; then
    [[ ! -s $dir/sshd.pid ]] || kill "$(cat "$dir/sshd.pid")"
    exit
fi

port=$3
mkdir -p "$dir" /run/sshd
for name in host user; do
    ssh-keygen -q -t ed25519 -N '' -C "" -f "$dir/$name"
done
cp "$dir/user.pub" "$dir/authorized_keys"
echo "[127.0.0.1]:$port $(cat "$dir/host.pub")" >"$dir/known_hosts"
cat >"$dir/sshd_config" <<CONFIG
ListenAddress 127.0.0.1
Port $port
HostKey $dir/host
AuthorizedKeysFile $dir/authorized_keys
PidFile $dir/sshd.pid
AuthenticationMethods publickey
PermitRootLogin prohibit-password
AllowTcpForwarding no
X11Forwarding no
StrictModes no
UsePAM no
CONFIG
/usr/sbin/sshd -f "$dir/sshd_config" -E "$dir/sshd.log"
