#!/bin/bash
# The first process of a Debian guest. It looks at the disk, writes to it, and restarts the guest
# until it has booted as often as test.boots in the kernel's command line says.
export PATH=/usr/bin:/usr/sbin
say() { echo "TEST $*" > /dev/console; }
end() { sync; mount -o remount,ro / && echo "$1" > /proc/sysrq-trigger; sleep 60; }
fail() { say "FAILED: $1"; end o; }

# Prints what the kernel and udev know about the disk.
look() {
    mount -t tmpfs tmpfs /run
    /lib/systemd/systemd-udevd --daemon || fail udevd
    udevadm trigger && udevadm settle --timeout=60 || fail udev
    for link in /dev/disk/by-id/*; do
        case $link in *-part*) ;; *) say "LINK ${link##*/} $(readlink -f "$link")" ;; esac
    done
    cd /sys/block/vda
    say DISK $(cat ro queue/{logical_block_size,physical_block_size,minimum_io_size} \
        queue/{optimal_io_size,discard_max_bytes,write_zeroes_max_bytes} cache_type) \
        $(ls mq | wc -l) queues
    cd /
}

# Checks the files of the last boot, and writes them again.
copy() {
    if [ "$count" != 1 ]; then
        (cd /copy && sha256sum --quiet -c /sums) || fail "files have changed"
        rm -r /copy
    fi
    mkdir /copy
    tar -C / -c usr/sbin usr/lib/x86_64-linux-gnu/perl-base | tar -C /copy -x || fail tar
    (cd /copy && find . -type f -exec sha256sum {} + > /sums)
}

# Installs a package at the first boot, and checks that it works at every boot.
install() {
    if [ "$count" = 1 ]; then
        dpkg --purge hello && dpkg --install /var/cache/apt/archives/hello_*.deb || fail dpkg
    fi
    dpkg --verify hello && hello | grep -q Hello || fail "the package does not work"
}

mount -o remount,rw / || fail "the root cannot be written"
echo boot >> /boots
count=$(wc -l < /boots)
firmware=bios
[ -d /sys/firmware/efi ] && firmware=efi
look
copy
install
if [ "$(findmnt -n -o FSTYPE /)" = ext4 ]; then
    sync
    fstrim -v / > /dev/console || fail fstrim
fi
say "BOOT $count by $firmware"
last=$(sed 's/.*test.boots=\([0-9]*\).*/\1/' /proc/cmdline)
[ "$count" -lt "$last" ] && end b
say PASSED
end o
