# boot_systemd.sh ROOT UNITS NOTIFY PLACE...: become systemd in a world of its own.
#
# Runs as root in new pid, mount, cgroup, uts, ipc and net namespaces. The machine's files are there, read-only;
# where systemd writes there are new, empty file systems, so that nothing of the machine's can be removed.
#   ROOT    an empty directory, to mount it all on
#   UNITS   a directory with the only units
#   NOTIFY  a notify socket, which is told when systemd is up
#   PLACE   directories to see, read-only, even if they are where the new file systems hide them
set -eu
root=$1
units=$2
notify=$3
shift 3
mount --bind / "$root"
mount -o remount,bind,ro "$root"
for place in tmp run var dev sys; do
    mount -t tmpfs -o mode=755 tmpfs "$root/$place"
done
mkdir -p "$root/dev/pts" "$root/dev/shm" "$root/var/tmp" "$root/var/lib" "$root/sys/fs/cgroup"
chmod 1777 "$root/tmp" "$root/var/tmp"
for place; do
    [ -d "$root$place" ] || mkdir -p "$root$place"
    mount --bind "$place" "$root$place"
    mount -o remount,bind,ro "$root$place"
done
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
END
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
cp -r "$units" "$root/run/units"
touch "$root/run/notify"
mount --bind "$notify" "$root/run/notify"
cd "$root"
exec setpriv --bounding-set -sys_time,-sys_module,-sys_boot,-sys_rawio,-syslog \
    chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test NOTIFY_SOCKET=/run/notify \
    SYSTEMD_UNIT_PATH=/run/units SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none \
    /lib/systemd/systemd --system --unit=default.target --show-status=no
