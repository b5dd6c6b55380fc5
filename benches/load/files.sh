#!/bin/sh
# files.sh PROGRAM LIBRARY: how many instructions a process takes to open, read and close one file and to write another
# (callgrind), as it is, unwatched and watched; on a text and on a picture's name; and how many of these are there for
# media files. PROGRAM is counterfoil, LIBRARY libcounterfoil.so. Needs valgrind and cc.
set -eu
program=$(readlink -f "$1") library=$(readlink -f "$2") load=$(dirname "$(readlink -f "$0")")
here=$(mktemp -d); cd "$here"
daemon=
trap 'test -z "$daemon" || kill $daemon; cd /; rm -r "$here"' EXIT
cc -O2 -o files "$load/files.c"
for name in notes.txt notes.png; do seq 1000 | head -c 512 >$name; done
count() { # rounds file environment…: instructions, and those of the functions for media
    rounds=$1 file=$2; shift 2
    valgrind -q --tool=callgrind --callgrind-out-file=out.$rounds --trace-children=yes --trace-children-skip=/usr/bin/env \
        env "$@" ./files "$file" copy "$rounds" 2>/dev/null || true
    callgrind_annotate --threshold=100 out.$rounds 2>/dev/null | awk '
        { count = $1; gsub(",", "", count) }
        /PROGRAM TOTALS/ { total = count }
        / [^ ]*\/images\.rs:|images::/ { media += count }
        END { print total, media + 0 }'
}
each() { # what file environment…: the difference of 300 and 100 rounds, a round
    what=$1; shift
    short=$(count 100 "$@") long=$(count 300 "$@")
    echo "$what $short $long" | awk '{ printf "%-28s %7.0f a round, %5.0f of them for media\n", $1, ($4 - $2) / 200, ($5 - $3) / 200 }'
}
each plain notes.txt A=B
# The kernel takes valgrind for the program that runs.
for watched in '' '"callgrind-amd64-linux", "callgrind-arm64-linux"'; do
    printf '[watch]\nwatched_processes = [%s]\n' "$watched" >config
    "$program" daemon --config config --socket "$here/socket" --state "$here/state" >log 2>&1 & daemon=$!
    until test -S socket; do kill -0 $daemon; sleep 0.1; done
    for file in notes.txt notes.png; do
        each "$(test -n "$watched" && echo watched || echo unwatched),$file" $file LD_PRELOAD="$library" COUNTERFOIL_SOCKET="$here/socket"
    done
    kill $daemon; wait $daemon || true
    daemon=; rm -rf socket state
done
