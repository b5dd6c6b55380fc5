#!/bin/sh
# scp.sh FOLDER MEBIBYTES [sums]: copies a file through an sshd of its own on the loopback, and prints how long
# scp took, with `sums` followed by sha256sum at both ends.
set -eu
cd "$1"
here=$PWD
if [ ! -f scp-config ]; then
    for key in host user; do ssh-keygen -q -t ed25519 -N '' -f scp-$key; done
    port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    sftp=$(ls /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server 2>/dev/null | head -n 1)
    mkdir -p /run/sshd 2>/dev/null || true
    cat >scp-sshd <<END
ListenAddress 127.0.0.1
Port $port
HostKey $here/scp-host
AuthorizedKeysFile $here/scp-user.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile none
Subsystem sftp $sftp
END
    cat >scp-config <<END
Host *
  HostName 127.0.0.1
  Port $port
  IdentityFile $here/scp-user
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
END
    head -c "$2"M /dev/urandom >scp-from
fi
port=$(sed -n 's/^  Port //p' scp-config)
"$(PATH=$PATH:/usr/sbin command -v sshd)" -D -f scp-sshd >/dev/null 2>&1 &
server=$!
tries=0
until ssh -F scp-config far true 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { kill $server; echo "no sshd on port $port" >&2; exit 1; }
    sleep 0.05
done
rm -f scp-to
from=$(date +%s%N)
scp -q -F scp-config scp-from far:"$here/scp-to"
if [ "${3:-}" = sums ]; then
    sums=$(sha256sum scp-from scp-to | cut -c1-64 | uniq | wc -l)
    [ "$sums" = 1 ]
fi
to=$(date +%s%N)
kill $server
wait $server 2>/dev/null || true
cmp scp-from scp-to
echo "{\"nanoseconds\": $((to - from))}"
