#!/bin/bash
# Stands for Warewulf's module in tests: for dracut, which sources it.

check() {
    return 255 # only where it is asked for
}

depends() {
    echo network
}

install() {
    inst_multiple cpio curl dmidecode gzip
    inst_hook cmdline 30 "$moddir/parse-wwinit.sh"
    inst_hook pre-mount 30 "$moddir/load-wwinit.sh"
}
