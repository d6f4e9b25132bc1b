#!/bin/busybox sh
# The first process of the guest, twice: once in the kernel's initial file system, where pivot_root is
# refused, and once more above it. The second one mounts what a machine has, runs the programs listed
# in /tests and says on the console how many failed.

busybox=/bin/busybox
if [ "$1" != again ]; then
  $busybox mkdir /above
  $busybox mount -o bind / /above
  cd /above || exit 1
  $busybox mount -o move . /
  exec $busybox chroot . /init again
fi

$busybox mkdir -p /proc /sys /dev /tmp /root
$busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
ip link set lo up
while read -r module; do
  insmod "$module" || echo "cannot load $module"
done </modules/order

# As on every machine that runs systemd, no process is in the root group. Nobody has passed the
# controllers on to its children yet: whoever needs them does that.
mkdir /sys/fs/cgroup/init.scope
echo 1 >/sys/fs/cgroup/init.scope/cgroup.procs
echo "kernel $(uname -r), controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"

set --
while read -r argument; do
  set -- "$@" "$argument"
done </arguments
# The tests' time limits are for real processors; a skipped test is a failed one here.
export RUST_BACKTRACE=1 KNARR_SLOWDOWN=20 KNARR_CONTAINERS=require
failed=0
while read -r test; do
  echo "running $test"
  "$test" "$@" </dev/null || failed=$((failed + 1))
done </tests
echo "GUEST RESULT $failed"
poweroff -f
