#!/bin/busybox sh
# The first and only process of the Linux that is compared with: loads the drivers, finds the two
# disks, measures them and turns the machine off.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs dev /dev
while read -r module; do
    $B insmod "/modules/$module" || echo "MISSING $module"
done < /modules/order
tries=0
until [ -b /dev/vda ] && [ -b /dev/sda ]; do
    tries=$((tries + 1))
    [ $tries -gt 100 ] && break
    $B sleep 0.1
done
for disk in vda sda; do
    echo none > /sys/block/$disk/queue/scheduler
    for depth in 1 32; do
        /bin/aiobench /dev/$disk $depth MILLISECONDS
    done
done
$B poweroff -f
