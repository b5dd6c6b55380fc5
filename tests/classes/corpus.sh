#!/bin/sh
# Makes a corpus of real files, one folder a class, for `make classes`. Takes what this host has (documentation, headers,
# programs, pictures), the sample files of Debian packages, and archives and ciphertext made of those with the real tools.
#
#   corpus.sh FOLDER [PACKAGE …]      Debian packages, or tars of sources
#
# What a tool is not there for is left out, and said.
set -eu
into=$1
shift
mkdir -p "$into"/text "$into"/structured "$into"/compressed "$into"/media "$into"/encrypted "$into"/binary
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
have() { command -v "$1" >/dev/null 2>&1 || { echo "skipped: $1 is not installed" >&2; return 1; }; }
# Every Nth line of a list, up to M: the same ones each time.
some() { sort | awk -v most="$1" '{ line[NR] = $0 } END { step = NR > most ? NR / most : 1; for (i = 1; i <= NR; i += step) print line[int(i)] }'; }
# Copies files under the number that they get, keeping the end of the name.
keep() { # class prefix
    n=0
    while IFS= read -r file; do
        n=$((n + 1))
        head -c 200000 "$file" >"$into/$1/$2-$n-$(basename "$file" | tr -c 'A-Za-z0-9.\n' _)" 2>/dev/null || true
    done
}
mkdir -p "$work/packages" "$work/plain"
for package in "$@"; do
    case $package in
    *.deb) dpkg -x "$package" "$work/packages" ;;
    *) tar -C "$work/packages" -xf "$package" ;;
    esac
done

# Text: prose and source code.
find /usr/share/common-licenses /usr/share/doc /usr/share/perl -type f \( -iname 'readme*' -o -iname 'news*' -o -name 'changelog' \
    -o -iname 'todo*' -o -name '*.txt' -o -name '*.pod' -o -name 'GPL-*' \) ! -name '*.gz' ! -name '*.html' -size +1 | some 150 | keep text prose
find /usr/include /usr/share/perl /usr/lib/python3 /usr/lib/git-core -type f \( -name '*.h' -o -name '*.pm' -o -name '*.py' -o -name '*.sh' \) \
    -size +8 | some 200 | keep text source
find /usr/include /usr/share/perl /usr/lib /usr/src "${CARGO_HOME:-$HOME/.cargo}" "$work/packages" -type f \( -name '*.h' -o -name '*.pm' -o -name '*.py' -o -name '*.pl' -o -name '*.rs' \
    -o -name '*.c' -o -name '*.md' \) -size +128 2>/dev/null | some 200 | keep text long
find /usr/share/doc /usr/share/man -type f \( -name 'changelog*.gz' -o -name '*.1.gz' -o -name '*.8.gz' \) -size +8 | some 200 |
    while IFS= read -r file; do zcat "$file" >"$work/plain/$(basename "$file" .gz)" 2>/dev/null || true; done
find "$work/plain" -type f | keep text unpacked

# Text with a syntax.
find /usr/share /usr/lib /etc -type f \( -name '*.json' -o -name '*.xml' -o -name '*.html' -o -name '*.svg' -o -name '*.csv' -o -name '*.desktop' \
    -o -name '*.service' -o -name '*.pem' \) -size +1 2>/dev/null | some 250 | keep structured syntax
find /usr/bin -type f -size +40 | some 20 | while IFS= read -r file; do base64 "$file" >"$into/structured/base64-$(basename "$file")"; done

# Programs and other binary files.
find /usr/bin /usr/lib /usr/sbin -type f \( -perm -100 -o -name '*.so*' -o -name '*.a' -o -name '*.o' -o -name '*.pyc' -o -name '*.mo' \) -size +8 |
    while IFS= read -r file; do head -c 2 "$file" | grep -q '#!' || echo "$file"; done | some 200 | keep binary program
find /usr/share -type f \( -name '*.mo' -o -name '*.ttf' -o -name '*.pdf' -o -name '*.bin' \) -size +8 | some 60 | keep binary data

# Pictures, sound and video.
find /usr/share /usr/lib "$work/packages" -type f \( -iname '*.png' -o -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.gif' -o -iname '*.tif*' \
    -o -iname '*.bmp' -o -iname '*.webp' -o -iname '*.mp3' -o -iname '*.ogg' -o -iname '*.wav' -o -iname '*.mp4' -o -iname '*.avi' -o -iname '*.mpeg' \
    -o -iname '*.flac' -o -iname '*.ico' -o -iname '*.mpc' -o -iname '*.ape' -o -iname '*.wv' -o -iname '*.tta' -o -iname '*.aac' -o -iname '*.wma' -o -iname '*.m4a' -o -iname '*.opus' -o -iname '*.dsf' -o -iname '*.mid' \) -size +8 >"$work/media"
some 200 <"$work/media" | keep media found
xargs -d '\n' -r sh -c 'find "$@" -size +127' - <"$work/media" | some 100 | keep media large
if have ffmpeg; then
    for end in mp3 ogg opus flac wav aac m4a aiff; do
        ffmpeg -v quiet -y -f lavfi -i 'anoisesrc=d=8:c=pink:a=0.5' -f lavfi -i 'sine=f=440:d=8' -filter_complex amix "$into/media/made.$end" </dev/null || true
    done
    for end in mp4 mkv webm avi mpg ts flv mov gif; do
        ffmpeg -v quiet -y -f lavfi -i 'mandelbrot=s=320x240:r=12' -t 2 "$into/media/video.$end" </dev/null || true
    done
    for end in png jpg bmp webp tiff; do
        ffmpeg -v quiet -y -f lavfi -i 'mandelbrot=s=800x600' -frames:v 1 "$into/media/still.$end" </dev/null || true
    done
    find "$into/media" -empty -delete
fi

# Brotli's streams have no container: nothing but their numbers tells what they are.
mkdir -p "$into/bare"
find "$work/packages" -type f -name '*.compressed*' -size +8 | some 60 | keep bare sample
# Test texts of packages.
find "$work/packages" -type f \( -path '*/testdata/*' -o -path '*/tests/data/*' \) -name '*.txt' -size +8 | some 40 | keep text sample

# What archives and ciphertext are made of: texts, programs, pictures, each some 300 KB.
mkdir "$work/sources"
i=0
for class in text binary media structured; do
    find "$into/$class" -type f -size +16 | some 80 >"$work/list"
    part=0
    while [ $part -lt 8 ]; do
        i=$((i + 1))
        awk -v part=$part 'NR % 8 == part' "$work/list" | xargs -d '\n' cat 2>/dev/null | head -c 600000 >"$work/sources/$class-$i"
        part=$((part + 1))
    done
done
key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
export GNUPGHOME="$work/gnupg"
mkdir -m 700 "$GNUPGHOME"
have age-keygen && age-keygen -o "$work/age" 2>/dev/null && to=$(sed -n 's/# public key: //p' "$work/age")
for source in "$work"/sources/*; do
    [ -s "$source" ] || continue
    name=$(basename "$source")
    out="$into/compressed/$name"
    mkdir -p "$into/bare"
    for level in 1 9; do gzip -c -$level "$source" >"$out-$level.gz"; done
    bzip2 -c "$source" >"$out.bz2"
    xz -c "$source" >"$out.xz"
    xz -c --format=lzma "$source" >"$out.lzma"
    have zstd && zstd -q -c "$source" >"$out.zst"
    have lz4 && lz4 -q -c "$source" >"$out.lz4" 2>/dev/null
    have brotli && brotli -c "$source" >"$into/bare/$name.br"
    have zip && (cd "$work/sources" && zip -q "$out.zip" "$name")
    have 7z && 7z a -bd -bso0 "$out.7z" "$source" >/dev/null
    tar -C "$work/sources" -czf "$out.tgz" "$name"
    # No container at all: nothing but their numbers tells what these are.
    python3 -c 'import sys,zlib; c=zlib.compressobj(9,8,-15); sys.stdout.buffer.write(c.compress(open(sys.argv[1],"rb").read())+c.flush())' \
        "$source" >"$into/bare/$name.deflate" || rm -f "$into/bare/$name.deflate"
    out="$into/encrypted/$name"
    openssl enc -aes-256-cbc -pbkdf2 -pass pass:x -in "$source" -out "$out.salted"
    openssl enc -aes-256-cbc -pbkdf2 -pass pass:x -a -in "$source" -out "$out.salted.txt"
    openssl enc -aes-256-ctr -K $key -iv "$(printf %032x $i)" -in "$source" -out "$out.ctr"
    openssl enc -chacha20 -K $key -iv "$(printf %032x $i)" -in "$source" -out "$out.chacha"
    openssl enc -des-ede3-cbc -K "$(printf %.48s $key)" -iv 0001020304050607 -in "$source" -out "$out.des3"
    have gpg && gpg -q --batch --pinentry-mode loopback --passphrase x -c -o "$out.gpg" "$source" 2>/dev/null
    have gpg && gpg -q --batch --pinentry-mode loopback --passphrase x -a -c -o "$out.asc" "$source" 2>/dev/null
    [ -z "${to-}" ] || age -r "$to" -o "$out.age" "$source"
    have zip && (cd "$work/sources" && zip -q -P x "$out.zip" "$name")
done
ls /var/cache/apt/archives/*.deb 2>/dev/null | some 20 | keep compressed deb
rmdir "$GNUPGHOME" 2>/dev/null || true
for class in "$into"/*; do echo "$(basename "$class"): $(find "$class" -type f | wc -l) files"; done
