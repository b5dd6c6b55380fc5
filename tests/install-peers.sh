#!/bin/sh
# Installs the real programs that the tests talk to, on Debian. Installs only what is missing, asks
# nothing, starts no service; a second run does nothing. Without root, or with another package
# manager, it says what is missing and ends well: a test without its peer prints `skipped: why`.
#   install-peers.sh               all that the tests need
#   install-peers.sh nginx wrk …   only these programs
set -eu

only=" $* "
need=""
wanted() {
    case $only in "  " | *" $1 "*) return 0 ;; *) return 1 ;; esac
}
want_program() { # program package
    wanted "$1" || return 0
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || need="$need $2"
}
want_package() {
    wanted "$1" || return 0
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] || need="$need $1"
}

want_program gcc gcc
want_program make make
want_program nginx nginx-light
want_program curl curl
want_program wget wget
want_program openssl openssl
want_program socat socat
want_program sshd openssh-server
want_program scp openssh-client
want_program rsync rsync
want_program haproxy haproxy
want_program stunnel4 stunnel4
want_program mkfs.xfs xfsprogs
want_program mkfs.btrfs btrfs-progs
want_program mosquitto mosquitto
want_program mosquitto_pub mosquitto-clients
want_program sqlite3 sqlite3
! wanted initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || need="$need postgresql"
want_program ip iproute2
want_program ethtool ethtool
want_program gdb gdb
want_program strace strace
want_program logrotate logrotate
want_program musl-gcc musl-tools
want_program setcap libcap2-bin
# Asks libraries' own handles for their functions.
want_program luajit luajit
# Loads its extensions with RTLD_DEEPBIND.
want_program php php-cli
! wanted php || ls /usr/lib/php/*/curl.so >/dev/null 2>&1 || need="$need php-curl"
# Media, archives and ciphertext: classes of content, and AN0332.
want_program steghide steghide
want_program outguess outguess
want_program stegsnow stegsnow
want_program exiftool libimage-exiftool-perl
want_program exiv2 exiv2
! wanted convert || [ -x /usr/bin/convert ] || need="$need imagemagick"
want_program binwalk binwalk
want_program ffmpeg ffmpeg
want_program 7z p7zip-full
want_program zip zip
want_program unzip unzip
want_program zstd zstd
want_program lz4 lz4
want_program brotli brotli
want_program gpg gpg
want_program gpg-agent gpg-agent
want_program age age
# What runs on any server all day (the busy host), and questions to a resolver.
want_program cron cron
want_program sudo sudo
want_program dig bind9-dnsutils
! wanted git || [ -x /usr/bin/git ] || need="$need git"
! wanted python3 || [ -x /usr/bin/python3 ] || need="$need python3"
# Only where they are asked for: no test talks to them (make bench).
[ "$only" = "  " ] || want_program wrk wrk
[ "$only" = "  " ] || want_program bpftrace bpftrace

if ! command -v dpkg-query >/dev/null 2>&1; then
    [ -z "$need" ] || echo "install-peers: not Debian; please install:$need" >&2
    exit 0
fi
for package in libc6-dev libssl-dev libgnutls28-dev netcat-openbsd forensics-samples-files python3-pil rsyslog rsyslog-openssl python3-prometheus-client libpython3.11-testsuite ca-certificates; do
    want_package "$package"
done

[ -n "$need" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "install-peers: not root; what needs these will be skipped:$need" >&2
    exit 0
fi

# Packages that bring a service must not start it here.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || true
# One by one where all together fail: a package that is not there must not cost the others.
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $need >/dev/null 2>&1 ||
    for package in $need; do
        apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 ||
            echo "install-peers: $package could not be installed" >&2
    done
