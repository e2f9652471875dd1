#!/bin/busybox sh
# The first domain: brings Xen's tool stack up, then does what the script of this run says.
export PATH=/usr/lib/xen-VERSION/bin:/usr/bin:/bin
/bin/busybox mkdir -p /proc /sys /run/xen /run/xenstored /var/lib/xen /var/log/xen /var/lock /dev
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
ln -s /run /var/run

fail() { echo "DOM0 FAILED: $*"; sleep 1; poweroff -f; }

while read -r module options; do
    insmod "/modules/$module.ko" $options || fail "the module $module does not load"
done </modules/order
mount -t xenfs xenfs /proc/xen || fail "this kernel is on no Xen"
xenstored --pid-file /run/xenstored.pid || fail "xenstored does not start"
tries=0
until xenstore-read / >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || fail "xenstored does not answer"
    sleep 0.1
done
xen-init-dom0 >/dev/null || fail "xen-init-dom0 failed"
xenconsoled --pid-file=/run/xenconsoled.pid --log=none || fail "xenconsoled does not start"
# What domains print goes to the second serial line as it is.
stty -F /dev/ttyS1 raw -echo 115200
echo "DOM0 READY at $(cut -d' ' -f1 /proc/uptime) s"

# outcome STATUS: ends QEMU, with twice STATUS and one.
outcome() {
    sync
    printf "\\$(printf %o "$1")" | dd of=/dev/port bs=1 seek=244 2>/dev/null
    poweroff -f
}
# start NAME [OPTION...]: a domain of this run, its console on the second serial line until it ends.
# Leaves why it ended in $reason.
start() {
    name=$1
    shift
    xl create -c "$@" "/run/domains/$name" </dev/ttyS1 >/dev/ttyS1 2>"/run/$name.err"
    status=$?
    reason=$(sed -n 's/.*Domain [0-9]* has shut down, reason code \([0-9]*\).*/\1/p' "/var/log/xen/xl-$name.log" | tail -n 1)
    if [ $status -ne 0 ] || [ -z "$reason" ]; then
        sed 's/^/xl: /' "/run/$name.err" "/var/log/xen/xl-$name.log"
    fi
    echo "DOMAIN $name ENDED: status $status reason ${reason:-none}"
}
# as_qemu REASON: what our image would have told QEMU itself.
as_qemu() {
    case "$1" in
    0) outcome 16 ;;
    3) outcome 18 ;;
    *) outcome 17 ;;
    esac
}
# serve: does what comes line by line at the port that QEMU has for that, and says how each line ended.
serve() {
    for port in /sys/class/virtio-ports/*; do
        [ "$(cat "$port/name")" = undercroft.control ] && exec 3<>"/dev/${port##*/}"
    done
    while read -r line <&3; do
        # With a subshell for each: none ends this one.
        (eval "$line") </dev/null >&3 2>&1 3</dev/null
        printf '\n#STATUS %s\n' $? >&3
    done
    poweroff -f
}
# steady PROGRAM [ARGUMENT...]: runs it again if it dies of a signal, as xl does now and then on an emulated processor.
steady() {
    for try in 1 2 3; do
        "$@"
        status=$?
        [ $status -ge 128 ] || return $status
    done
    return $status
}
# spare MODULE [OPTION...]: loads a module that is not loaded at the start, with what it needs.
spare() {
    wanted=$1
    shift
    while read -r module; do
        if [ "$module" = "$wanted" ]; then
            insmod "/modules/$module.ko" "$@"
        elif ! grep -q "^$module " /proc/modules; then
            insmod "/modules/$module.ko"
        fi
    done </modules/spare
}
# behind NAME [OPTION...]: as start, in the background; its last line is in a file.
behind() {
    rm -f "/run/$1.end"
    (start "$@" >"/run/$1.out" 2>&1 </dev/null; mv "/run/$1.out" "/run/$1.end") >/dev/null 2>&1 &
}
# ended NAME SECONDS: waits for the end of a domain that was started behind, and says how that was.
ended() {
    tries=$(($2 * 10))
    until [ -e "/run/$1.end" ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.1
    done
    cat "/run/$1.end"
}
. /run/domains/script
fail "the script has an end"
