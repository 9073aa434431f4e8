# shellcheck shell=bash
# What the scripts that start emulated machines share, above all Debian's kernel, which need not be the
# host's: fetched once, unpacked, and kept in $cache. To be sourced by a script that has the functions
# `die` and `say`.

# Images for emulated machines, made from what is there too.
readonly cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/dbos/vm

# depmod is in /usr/sbin, which a user's PATH may lack.
export PATH="$PATH:/usr/sbin:/sbin"

# Removes the directories NAME.PID.* of runs that are no more.
sweep_old_runs() { # sweep_old_runs NAME
    local dir pid
    for dir in "${TMPDIR:-/tmp}/$1".*; do
        pid=${dir##*/"$1".}
        pid=${pid%%.*}
        [[ -O $dir && $pid =~ ^[0-9]+$ && ! -d /proc/$pid ]] || continue
        rm -rf -- "$dir"
    done
}

# Held until unlock_cache: another run may be making the same, and each result must appear whole.
lock_cache() {
    mkdir -p "$cache" || die "cannot make the cache directory $cache."
    # Another user's, where it was made as root with this user's HOME.
    { exec {lock}>"$cache/lock"; } 2>/dev/null ||
        die "cannot write in the cache directory $cache; make it yours (chown -R), or set XDG_CACHE_HOME."
    flock "$lock" || die "cannot lock $cache/lock."
    # Under the lock these are a killed run's.
    rm -rf -- "$cache"/fetch.* "$cache"/build.*
}

unlock_cache() { exec {lock}>&-; }

# The kernel package that Debian's linux-image-amd64 stands for today.
newest_kernel_package() {
    { apt-cache depends linux-image-amd64 2>/dev/null || true; } |
        sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1
}

# A bzImage unpacks itself, which takes the emulated processor seconds. The host
# does it once: QEMU starts an ELF kernel through its PVH entry.
unpack_kernel() { # unpack_kernel BZIMAGE VMLINUX
    local setup_sectors offset length magic unpacker
    # Offsets from Documentation/arch/x86/boot.rst in Linux: setup_sects 0x1f1,
    # payload_offset 0x248, payload_length 0x24c.
    setup_sectors=$(od -An -tu1 -j $((0x1f1)) -N1 "$1")
    offset=$(od -An -tu4 -j $((0x248)) -N4 "$1")
    length=$(od -An -tu4 -j $((0x24c)) -N4 "$1")
    offset=$((offset + (setup_sectors + 1) * 512))
    magic=$(od -An -tx1 -j "$offset" -N4 "$1" | tr -d ' ')
    case $magic in
    fd377a58) unpacker=xz ;;
    28b52ffd) unpacker=zstd ;;
    1f8b*) unpacker=gzip ;;
    *) return 1 ;;
    esac
    # The last four bytes of the payload are its unpacked size.
    head -c $((offset + length - 4)) "$1" | tail -c +$((offset + 1)) | "$unpacker" -dc >"$2" 2>/dev/null
}

fetch_kernel() { # fetch_kernel PACKAGE: into $cache/PACKAGE, whole or not at all
    local package=$1 work image
    [[ ! -d $cache/$package ]] || return 0
    say "fetching $package"
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    # As root apt warns that its own user can't write here; harmless.
    (cd "$work" && apt-get -qq download "$package" 2>log) ||
        die "cannot download $package with apt-get: $(tail -n 1 "$work/log")"
    dpkg -x "$work"/*.deb "$work/unpacked"
    image=$(echo "$work"/unpacked/boot/vmlinuz-*)
    mkdir "$work/kernel"
    if ! (set -o pipefail; unpack_kernel "$image" "$work/kernel/image"); then
        say "$package's kernel is packed in an unknown way; it boots as it is"
        cp "$image" "$work/kernel/image"
    fi
    if [[ -d $work/unpacked/usr/lib/modules ]]; then
        mv "$work/unpacked/usr/lib" "$work/kernel/lib"
    else
        mv "$work/unpacked/lib" "$work/kernel/lib"
    fi
    depmod -b "$work/kernel" "${image##*/vmlinuz-}"
    mv -T "$work/kernel" "$cache/$package"
    rm -rf -- "$work"
}

# Prints the files of the given modules and of all they depend on, in the order
# to load them.
modules_in_order() { # modules_in_order MODULES-DIR MODULE...
    local dir=$1 module line file
    shift
    for module in "$@"; do
        line=$(grep -E "/${module//[-_]/[-_]}\.ko[.a-z]*:" "$dir/modules.dep") || {
            grep -qE "/${module//[-_]/[-_]}\.ko$" "$dir/modules.builtin" && continue
            die "the kernel has no module $module."
        }
        # modules.dep lists a module, then its dependencies, the deepest last.
        for file in ${line/:/}; do printf '%s\n' "$file"; done | tac
    done | awk '!seen[$0]++'
}

add_module() { # add_module FILE DIRECTORY: unpacked, printing its new name
    local name=${1##*/}
    case $name in
    *.ko) cp "$1" "$2/$name" ;;
    *.ko.xz) xz -dc "$1" >"$2/${name%.xz}" ;;
    *.ko.zst) zstd -qdc "$1" >"$2/${name%.zst}" ;;
    *.ko.gz) gzip -dc "$1" >"$2/${name%.gz}" ;;
    *) die "a kernel module has an unknown form: $1" ;;
    esac
    printf '%s\n' "${name%%.ko*}.ko"
}

# Sets $package to the one whose files are in $cache/$package: `image`, the kernel, and its modules below
# `lib`. With the cache locked.
prepare_kernel() { # prepare_kernel any|newest
    package=''
    [[ ! -s $cache/package ]] || package=$(<"$cache/package")
    if [[ $1 = newest || ! -d $cache/$package || -z $package ]]; then
        package=$(newest_kernel_package)
        [[ -n $package ]] || die "apt-cache knows no kernel (linux-image-amd64); run apt-get update first."
        fetch_kernel "$package"
        printf '%s\n' "$package" >"$cache/package.new"
        mv "$cache/package.new" "$cache/package"
    fi
    # 400 MB each. The time is that of the last use.
    touch -c -- "$cache/$package"
    find "$cache" -maxdepth 1 -type d -name 'linux-image-*' ! -name "$package" -mtime +7 -exec rm -rf -- {} +
}
