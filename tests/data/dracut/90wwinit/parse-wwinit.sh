#!/bin/sh
# Stands for Warewulf's hook of 4.6.5: what the command line of the kernel says.

case "$(getarg root=)" in
wwinit | wwinit:*)
    wwinit_root=$(getarg root=)
    wwinit_root=${wwinit_root#wwinit}
    wwinit_root=${wwinit_root#:}
    wwinit_uri=$(getarg wwinit.uri=)
    wwinit_size=$(getarg wwinit.tmpfs.size=)
    wwinit_uuid=$(dmidecode -s system-uuid)
    wwinit_asset=$(dmidecode -s chassis-asset-tag)
    export wwinit_root wwinit_uri wwinit_size wwinit_uuid wwinit_asset
    [ -n "$wwinit_uri" ] || die "wwinit: no wwinit.uri"
    root=wwinit
    rootok=1
    ;;
esac
