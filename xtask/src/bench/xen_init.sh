#!/bin/busybox sh
# The first and only process of the Linux domain that is compared with: loads the driver, finds the disk, measures it and
# turns the domain off.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs dev /dev
while read -r module; do
    $B insmod "/modules/$module" || echo "MISSING $module"
done < /modules/order
tries=0
until [ -b /dev/xvda ]; do
    tries=$((tries + 1))
    [ $tries -gt 100 ] && break
    $B sleep 0.1
done
echo none > /sys/block/xvda/queue/scheduler
for depth in 1 32; do
    /bin/aiobench /dev/xvda $depth MILLISECONDS
done
$B poweroff -f
