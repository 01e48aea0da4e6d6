#!/bin/sh
# Runs the scripts that prepare a node before its root file system exists (disks, file systems), in the order of their
# names. They find their files below $PREFIX. The first one that fails ends this, and with it the boot.

PREFIX=${PREFIX-}
export PREFIX
LC_ALL=C
export LC_ALL

udev=''
status=0
for script in "$PREFIX"/warewulf/wwinit.d/*; do
    case $script in *.wwbackup) continue ;; esac # of an overlay that is there twice
    [ -f "$script" ] || continue
    # Disks and their links below /dev/disk appear through udev, which nobody else has started by now.
    if [ -z "$udev" ] && [ ! -e /run/udev/control ]; then
        for udev in /usr/lib/systemd/systemd-udevd /lib/systemd/systemd-udevd /sbin/udevd; do
            [ -x "$udev" ] || continue
            "$udev" --daemon && udevadm trigger --action=add && udevadm settle --timeout=60
            break
        done
    fi
    echo "wwinit: running ${script##*/}"
    sh "$script"
    status=$?
    if [ "$status" -ne 0 ]; then
        echo "wwinit: ${script#"$PREFIX"} failed with exit status $status"
        break
    fi
done
[ "$status" -ne 0 ] || : > /run/wwinit.ready
[ -z "$udev" ] || udevadm control --exit 2> /dev/null
# Warewulf's module for dracut goes on whatever we return, and would unpack the image over what stopped us. Under systemd
# the console has its errors alone.
if [ "$status" -ne 0 ] && [ -n "$PREFIX" ] && [ -z "${WWTARGET-}" ] && [ -e /etc/initrd-release ]; then
    why=$(cat /run/wwinit.why 2> /dev/null || echo "see the messages above")
    echo "wwinit: BOOT STOPPED: preparing the node failed: $why" >&2
    case " $(cat /proc/cmdline) " in
        *" wwinit.shell "*)
            echo "wwinit: this is the shell of wwinit.shell; the node reboots when it ends" >&2
            sh -i < /dev/console > /dev/console 2>&1
            ;;
        *)
            echo "wwinit: the node reboots in 60 seconds; add wwinit.shell to its kernel arguments to get a shell here" >&2
            sleep 60
            ;;
    esac
    echo 1 > /proc/sys/kernel/sysrq
    echo b > /proc/sysrq-trigger
    sleep 60
fi
exit "$status"
