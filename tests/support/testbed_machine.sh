#!/bin/sh
# The first process of a testbed machine: testbed_machine.sh NAME BASE FOLDER
#
# It runs in new mount, pid, uts and ipc namespaces and in the machine's network namespace. It puts up the machine's
# own root, its disk over BASE, leaves the client's file systems behind and becomes sshd.
set -eu
name=$1 base=$2 folder=$3 root=$3/root disk=$3/disk

hostname "$name"
# A disk of its own goes at once in the end, however many files there are. Without loop devices it is a folder.
mount -o loop "$folder/image" "$disk" 2>/dev/null || printf 'without a disk of its own\n'
mkdir -p "$disk/upper" "$disk/work"
cp -a "$folder/seed/." "$disk/upper/"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$disk/upper,workdir=$disk/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/run/sshd" "$root/dev/pts" "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

mkdir "$root/run/client"
cd "$root"
pivot_root . run/client
exec chroot . /bin/sh -c 'umount -l /run/client && rmdir /run/client && exec /usr/sbin/sshd -D -e' </dev/null
