#!/bin/busybox sh
# What xl calls for a disk: `add` makes a block device of a file and tells xen-blkback which it is, `remove` undoes that.
export PATH=/usr/bin:/bin
case "$1" in
add)
    place=$(xenstore-read "$XENBUS_PATH/params")
    if [ ! -b "$place" ]; then
        device=$(losetup -f)
        if ! losetup "$device" "$place"; then
            xenstore-write "$XENBUS_PATH/hotplug-error" "no loop device for $place" "$XENBUS_PATH/hotplug-status" error
            exit 1
        fi
        xenstore-write "$XENBUS_PATH/node" "$device"
        place=$device
    fi
    xenstore-write "$XENBUS_PATH/physical-device" "$(stat -L -c %t:%T "$place")" \
        "$XENBUS_PATH/physical-device-path" "$place" "$XENBUS_PATH/hotplug-status" connected
    ;;
remove)
    device=$(xenstore-read "$XENBUS_PATH/node" 2>/dev/null) && losetup -d "$device"
    ;;
esac
exit 0
