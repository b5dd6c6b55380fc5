#!/bin/sh
# https.sh FOLDER SECONDS [PREFIX…]: nginx, started by PREFIX (nothing: alone), serves 1 KiB over TLS to wrk, which is
# never started by PREFIX. A processor for nginx, another for wrk. Prints wrk's result (https.lua) and the processor
# time of nginx's worker for a request.
set -eu
load=$(cd "$(dirname "$0")" && pwd)
cd "$1"
here=$PWD
seconds=$2
shift 2
PATH=$PATH:/usr/sbin
if [ ! -f https-config ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
        -keyout https-key -out https-cert 2>/dev/null
    mkdir https-root https-spool
    head -c 1024 /dev/urandom >https-root/body
    # The worker has another user where nginx is started by root.
    chmod 755 . https-root
    chmod 644 https-root/body
    port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    echo "https://127.0.0.1:$port/body" >https-url
    sed "s|@HERE@|$here|g; s|@PORT@|$port|" "$load/https.conf" >https-config
fi
# The first two processors that we may use; with only one, both share it.
# shellcheck disable=SC2046
set -- $(python3 -c 'import os; a = sorted(os.sched_getaffinity(0)); print(a[0], a[min(1, len(a) - 1)])') "$@"
server_on=$1 client_on=$2
shift 2
client() { taskset -c "$client_on" wrk -t 1 -c 16 -d "$1s" -s "$load/https.lua" "$(cat https-url)" >https-said; }
# Time on a processor, all threads of the worker, in ns.
worker_ns() { cat /proc/"$worker"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'; }

rm -f https-pid
"$@" taskset -c "$server_on" nginx -c "$here/https-config" </dev/null >https-output 2>&1 &
server=$!
tries=0
until [ -s https-pid ] && [ "$(curl -sko https-got -w '%{http_code}' "$(cat https-url)")" = 200 ]; do
    tries=$((tries + 1))
    if [ $tries -ge 200 ] || ! kill -0 $server 2>/dev/null; then
        kill $server 2>/dev/null || true
        echo "nginx doesn't answer" >&2
        cat https-output https-errors >&2
        exit 1
    fi
    sleep 0.05
done
cmp https-root/body https-got
master=$(cat https-pid)
worker=$(cut -d' ' -f1 "/proc/$master/task/$master/children")
client 1
before=$(worker_ns)
client "$seconds"
after=$(worker_ns)
kill -QUIT "$master"
wait $server
requests=$(grep -o '"requests": [0-9]*' https-said | grep -o '[0-9]*$')
grep '^{' https-said | sed "s/}\$/, \"processor_ns\": $(((after - before) / (requests + 1)))}/"
