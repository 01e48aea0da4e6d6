#!/bin/sh
# Stands for Warewulf's hook of 4.6.5: the same requests, in the same order, with the same options of curl and cpio.

[ -n "$wwinit_uri" ] || return 0

# STAGE TREE
wwinit_fetch() {
    wwinit_port=
    [ "$1" != runtime ] || wwinit_port="--local-port 1-1023"
    info "wwinit: $1"
    # shellcheck disable=SC2086 # two words or none
    curl --location --silent --get $wwinit_port --retry 60 --retry-connrefused --retry-delay 1 \
        --data-urlencode "assetkey=$wwinit_asset" --data-urlencode "uuid=$wwinit_uuid" \
        --data-urlencode "stage=$1" --data-urlencode "compress=gz" "$wwinit_uri" |
        gzip -d | cpio -ium --quiet --directory="$2" || die "wwinit: no $1"
}

mkdir -p /tmp/wwinit
wwinit_fetch system /tmp/wwinit
[ ! -x /tmp/wwinit/warewulf/run-wwinit.d ] || PREFIX=/tmp/wwinit /tmp/wwinit/warewulf/run-wwinit.d
case "$wwinit_root" in
"" | tmpfs | initramfs | rootfs)
    mount -t tmpfs -o "mode=0755,mpol=interleave${wwinit_size:+,size=$wwinit_size}" tmpfs "$NEWROOT"
    ;;
*)
    mount "$wwinit_root" "$NEWROOT"
    ;;
esac || die "wwinit: no root"
for wwinit_stage in image system runtime; do
    wwinit_fetch "$wwinit_stage" "$NEWROOT"
done
[ ! -d /tmp/wwinit/warewulf/run ] || cp -a /tmp/wwinit/warewulf/run "$NEWROOT/warewulf/"
