#!/bin/busybox sh
# The first and only process of the Linux that is compared with: loads the drivers, finds the
# disks, measures them and turns the machine off.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs dev /dev
appears() {
    tries=0
    until [ -b "/dev/$1" ]; do
        tries=$((tries + 1))
        [ $tries -gt 100 ] && break
        $B sleep 0.1
    done
}
while read -r module; do
    # SCSI disks are named in the order in which they are found: virtio-scsi's comes first.
    [ "$module" = vmw_pvscsi.ko ] && appears sda
    $B insmod "/modules/$module" || echo "MISSING $module"
done < /modules/order
for disk in vda sda sdb; do
    appears $disk
    echo none > /sys/block/$disk/queue/scheduler
    for depth in 1 32; do
        /bin/aiobench /dev/$disk $depth MILLISECONDS
    done
done
$B poweroff -f
