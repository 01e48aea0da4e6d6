# Prepares the disks of a node, for the scripts of wwinit.d: `disk` with `partition` and `partitioned`, `filesystem`, `root`.
#
# What is right is left alone, what is missing is made, and what is something else stops the boot with what was found
# and what was wanted, unless the order to wipe it is given. All of a disk is looked at before anything of it is changed.
#
# What it calls; `wwfast image build` collects these for stage-1 of nodes whose root is on a disk.
#% blkid wipefs partx mount umount mkdir cat head wc sync rm readlink tail tr sleep modprobe
#
# What it calls for what is wanted alone, where the image has it; a line for each: the first one makes it.
#%? sfdisk
#%? mkswap
#%? mkfs.ext4 e2label
#%? mkfs.ext3 e2label
#%? mkfs.ext2 e2label
#%? mkfs.xfs xfs_db
#%? mkfs.btrfs btrfs
#%? mkfs.vfat fatlabel

NEW=WWFAST-NEW    # label of a file system that is not whole yet: it is made again
MARK=.wwfast-root # file of a root that was made by us, and may be made anew
KEPT=.wwfast-kept # directory of one that is updated, where stage-1 says what is on it
LINE='
'

# The boot cannot go on: said here, and told by who ran us.
stop() {
    printf 'wwinit: %s\n' "$*" >&2
    printf '%s\n' "$*" > /run/wwinit.why
    exit 1
}

# What blkid finds of one kind on a device.
value() {
    blkid -p -o value -s "$2" "$1" 2> /dev/null
}

# All disks and partitions that hold anything at all.
blocks() {
    for place in /sys/class/block/*; do
        block=/dev/${place##*/}
        case $block in /dev/ram* | /dev/zram* | /dev/fd* | /dev/sr*) continue ;; esac
        if [ -b "$block" ] && [ "$(cat "$place/size")" -gt 0 ]; then echo "$block"; fi
    done
}

# MiB of a device of /dev.
mebibytes() {
    echo $(($(cat "/sys/class/block/${1#/dev/}/size") / 2048))
}

# What there is, for people.
there_is() {
    for block in $(blocks); do
        printf '%s (%s MiB) ' "$block" "$(mebibytes "$block")"
    done
}

# Devices where blkid finds this, a line each: matching KIND TEXT.
matching() {
    text=$2
    while :; do # as udev writes it in the names of links
        case $text in *'\x20'*) text="${text%%'\x20'*} ${text#*'\x20'}" ;; *) break ;; esac
    done
    for block in $(blocks); do
        if [ "$(value "$block" "$1")" = "$text" ]; then echo "$block"; fi
    done
}

# Of devices that are one disk by several paths the first, as nobody joined these; all of them where they are not.
single() {
    former=''
    for block; do
        place=$(readlink -f "/sys/class/block/${block#/dev/}")
        [ ! -e "$place/partition" ] || place=${place%/*}
        world=$(cat "$place/device/wwid" 2> /dev/null)
        id="$world $(value "$block" PART_ENTRY_UUID) $(value "$block" UUID)"
        if [ -z "$world" ] || [ "${former:=$id}" != "$id" ]; then
            printf '%s\n' "$@"
            return
        fi
    done
    echo "$1"
}

# The device that has this name, one only: /dev/NAME, LABEL=, UUID=, PARTLABEL=, PARTUUID=, or a link of udev. Drivers may
# take a while to find their disks.
device() {
    # Stage-1 and the image have these; the initramfs of dracut has what it was told to take.
    for program in blkid wipefs cat head wc tail tr readlink; do
        have "$program" "look at $1"
    done
    tries=0
    while :; do
        case $1 in
            LABEL=*) got=$(matching LABEL "${1#*=}") ;;
            UUID=*) got=$(matching UUID "${1#*=}") ;;
            PARTLABEL=*) got=$(matching PART_ENTRY_NAME "${1#*=}") ;;
            PARTUUID=*) got=$(matching PART_ENTRY_UUID "${1#*=}") ;;
            /dev/disk/by-label/*) got=$(matching LABEL "${1##*/}") ;;
            /dev/disk/by-uuid/*) got=$(matching UUID "${1##*/}") ;;
            /dev/disk/by-partlabel/*) got=$(matching PART_ENTRY_NAME "${1##*/}") ;;
            /dev/disk/by-partuuid/*) got=$(matching PART_ENTRY_UUID "${1##*/}") ;;
            *) if [ -b "$1" ]; then got=$(readlink -f "$1"); else got=''; fi ;;
        esac
        # shellcheck disable=SC2086 # a word for each device
        case $got in *"$LINE"*) got=$(single $got) ;; esac
        case $got in
            *"$LINE"*) stop "$1 may be any of these: $(echo "$got" | tr '\n' ' ')" ;;
            ?*)
                echo "$got"
                return 0
                ;;
        esac
        tries=$((tries + 1))
        [ "$tries" -le "${WAIT:-30}" ] || stop "there is no $1; this node has ${there:=$(there_is)}"
        # Without udev nobody else loads drivers for what is found late.
        # shellcheck disable=SC2046 # a word for each device
        [ -e /run/udev/control ] || modprobe -a -q -b $(cat /sys/bus/*/devices/*/modalias 2> /dev/null) || :
        sleep 1
    done
}

# What a device holds, nothing where it is blank. What blkid says counts and not its status, which is the same for a
# blank device, one that cannot be read and one that may be several things; wipefs knows also what is damaged.
holds() {
    got=$(head -c 65536 "$1" 2> /dev/null | wc -c)
    [ "$got" -eq 65536 ] || stop "$1 cannot be read"
    said=$(blkid -p -o value -s TYPE "$1" 2>&1)
    [ -n "$said" ] || said=$(blkid -p -o value -s PTTYPE "$1" 2>&1)
    if [ -z "$said" ]; then
        said=$(wipefs --noheadings --output TYPE "$1" 2>&1 | tr '\n' ' ')
        said=${said:+damaged ${said% }}
    fi
    echo "$said"
}

# The same for people: described DEVICE KIND.
described() {
    case $2 in
        '') echo nothing ;;
        damaged* | PMBR) echo "something damaged (${2#damaged })" ;;
        gpt | dos | sun | mac | bsd | atari | sgi) echo "a partition table ($2)" ;;
        swap) echo "swap space" ;;
        swsuspend) echo "a system that was suspended to disk" ;;
        LVM2_member) echo "a physical volume of LVM" ;;
        linux_raid_member) echo "a part of a RAID (md)" ;;
        crypto_LUKS) echo "an encrypted volume (LUKS)" ;;
        *ambivalent*) echo "several things at once, which \`wipefs $1\` lists" ;;
        *)
            label=$(value "$1" LABEL)
            echo "a file system ($2${label:+, label $label})"
            ;;
    esac
}

writable() {
    [ "$(cat "/sys/class/block/${1#/dev/}/ro")" = 0 ] || stop "$1 is read-only, and $2"
}

have() {
    command -v "$1" > /dev/null || stop "there is no $1 here to $2: install the package of $1 in the image and build it"
}

# The last line that a program said.
last() {
    echo "$1" | tail -n 1
}

# A disk whose partitions follow: disk DEVICE ORDER [HEADER...], ORDER `wipe` to make the table anew where it is another
# one, or empty; headers as sfdisk reads them.
disk() {
    asked=$1 order=$2 scheme=gpt heads=''
    shift 2
    for head; do
        case $head in
            'label: '*) scheme=${head#label: } ;;
            *) heads="$heads$head$LINE" ;;
        esac
    done
    disk=$(device "$asked") || exit 1
    have sfdisk "partition $asked"
    have partx "partition $asked"
    sector=$(cat "/sys/class/block/${disk#/dev/}/queue/logical_block_size") || stop "$disk is no disk that has partitions"
    case $disk in *[0-9]) infix=p ;; *) infix='' ;; esac
    table=$(holds "$disk") || exit 1
    case "$scheme $table" in
        'gpt damaged gpt' | 'gpt damaged gpt gpt') # one or both of its copies
            if [ "$(head -c 512 "$disk" | tr -d '\000' | wc -c)" -eq 0 ]; then
                protect
                table=$(holds "$disk") || exit 1
            fi
            ;;
    esac
    all='' more='' remove='' grow='' wrong='' known='' total=2 dump=''
    if [ "$table" = "$scheme" ]; then
        dump=$(sfdisk --dump "$disk" 2>&1)
        case $dump in
            *corrupt*) # one of the two copies: power went while it was written
                dump=$(sfdisk --dump "$disk" 2> /dev/null)
                echo "wwinit: the partition table of $disk is damaged in one copy, and is written as the other one has it"
                written "$dump" --wipe never
                ;;
        esac
        partx --update "$disk" > /dev/null 2>&1
    fi
}

# The sector before a GPT that is whole but for that, or in its copy at the end alone: sfdisk reads neither without. Power
# went while a table was written, or somebody cleared the beginning of a disk that has partitions.
protect() {
    writable "$disk" "its partition table is to be mended"
    { head -c 446 /dev/zero && printf '\000\000\002\000\356\377\377\377\001\000\000\000\377\377\377\377' &&
        head -c 48 /dev/zero && printf '\125\252'; } > "$disk" || stop "$disk cannot be written"
    sync
}

# The table of $disk from what sfdisk reads: written SCRIPT [OPTION...].
written() {
    script=$1
    shift
    writable "$disk" "its partitions are to be changed"
    said=$(echo "$script" | sfdisk -q --no-tell-kernel --no-reread "$@" "$disk" 2>&1) ||
        stop "the partitions that are wanted cannot be made on $disk, which has $(mebibytes "$disk") MiB: $(last "$said")"
    sync
    tries=0
    until said=$(partx --update "$disk" 2>&1); do # udev may look at one of them just now
        tries=$((tries + 1))
        [ "$tries" -lt 10 ] || stop "the kernel does not take the new partitions of $disk: $(last "$said")"
        sleep 1
    done
}

# A field of a partition in the dump of sfdisk.
field() {
    case $1 in
        *"$2="*)
            got=${1#*"$2="}
            got=${got%%,*}
            echo "${got##* }"
            ;;
    esac
}

# Finds the partition with this number, or with this name where there is no number; sets is_* and `there`.
find_partition() {
    there='' is_number='' is_name=''
    while IFS= read -r line; do
        case $line in "$disk"*" : "*) ;; *) continue ;; esac
        is_number=${line%% : *}
        is_number=${is_number#"$disk$infix"}
        case $line in *' name="'*) is_name=${line#*' name="'} is_name=${is_name%%\"*} ;; *) is_name='' ;; esac
        if [ "$is_number" = "$1" ] || { [ -z "$1" ] && [ "$is_name" = "$2" ]; }; then
            there=$line
            return 0
        fi
    done << END
$dump
END
    return 1
}

# Sectors of a size as sfdisk reads it, where it is a number with a unit or none.
sectors() {
    case $1 in
        *KiB) unit=1024 ;;
        *MiB) unit=1048576 ;;
        *GiB) unit=1073741824 ;;
        *TiB) unit=1099511627776 ;;
        *) unit=$sector ;;
    esac
    amount=${1%[KMGT]iB}
    case $amount in '' | *[!0-9]*) ;; *) echo $((amount * unit / sector)) ;; esac
}

upper() {
    echo "$1" | tr '[:lower:]' '[:upper:]'
}

# One partition that is wanted: fields of nodes.conf or of sfdisk as KEY=VALUE, and the words `wipe`, `absent`, `resize`.
partition() {
    number='' name='' start='' size='' type='' uuid='' attrs='' bootable='' wipe='' absent='' resize=''
    for word; do
        case $word in
            number=*) number=${word#*=} ;;
            name=*) name=${word#*=} ;;
            start=*) start=${word#*=} ;;
            size=*) size=${word#*=} ;;
            type=*) type=${word#*=} ;;
            uuid=*) uuid=${word#*=} ;;
            attrs=*) attrs=${word#*=} ;;
            *) eval "$word=yes" ;;
        esac
    done
    [ "$number" != 0 ] || number=''
    case $name in *[!\ -~]* | *[\"\\\$\`]*) stop "the partition $name of $asked can have ASCII in its name, without \" \\ \$ \`" ;; esac
    [ "${#name}" -le 36 ] || stop "the partition $name of $asked has a name of more than 36 letters"
    called="partition ${number:+$number }${name:+\"$name\" }of $disk"
    find_partition "$number" "$name"
    if [ -n "$absent" ]; then
        if [ -z "$there" ]; then return; fi
        known=yes
        if [ -n "$wipe" ]; then remove="$remove $is_number"; else differs "is there and should not exist"; fi
        return
    fi
    line="${number:+$disk$infix$number : }${start:+start=$start, }${size:+size=$size, }${type:+type=$type, }"
    line="$line${uuid:+uuid=$uuid, }${attrs:+attrs=\"$attrs\", }${bootable:+bootable, }${name:+name=\"$name\"}"
    all="$all$line$LINE"
    need=$(sectors "${size:-0}")
    total=$((total + ${need:-0} / (1048576 / sector)))
    if [ -z "$there" ]; then
        more="$more$line$LINE"
        is=$number
        if [ -n "$number" ] && [ -n "$name" ] && find_partition '' "$name"; then
            known=yes
            differs "is number $is_number and should be $is"
        fi
        return
    fi
    before=$wrong
    if [ "$is_name" = "$name" ] || [ -z "$name" ]; then known=yes; else differs "is called \"$is_name\""; fi
    is=$(field "$there" start) want=$(sectors "$start")
    [ "${want:-$is}" = "$is" ] || differs "starts at $((is * sector / 1048576)) MiB and should at $start"
    is=$(field "$there" size) want=$(sectors "$size")
    if [ -n "$resize" ] && [ "${want:-0}" -gt "$is" ]; then
        grow="$grow $is_number:$want"
    elif [ "${want:-0}" != 0 ] && [ "$want" != "$is" ]; then
        differs "has $((is * sector / 1048576)) MiB and should have $size"
    fi
    is=$(field "$there" type)
    case $type in ????????-*-*-*-*) [ "$(upper "$type")" = "$is" ] || differs "is of the type $is and should be $type" ;; esac
    is=$(field "$there" uuid)
    [ -z "$uuid" ] || [ "$(upper "$uuid")" = "$is" ] || differs "has the id $is and should have $uuid"
    if [ "$wrong" != "$before" ] && [ -n "$wipe" ]; then
        wrong=$before
        remove="$remove $is_number" more="$more$line$LINE"
    fi
}

differs() {
    wrong="$wrong${wrong:+; }$called $*"
}

# After the partitions of a disk: makes what is missing.
partitioned() {
    [ "$(mebibytes "$disk")" -ge "$total" ] || [ -z "$more" ] ||
        stop "$disk has $(mebibytes "$disk") MiB, and the partitions that are wanted on it take $total"
    if [ -n "$table" ] && [ "$table" != "$scheme" ]; then
        wrong="$disk holds $(described "$disk" "$table"), and a partition table ($scheme) is wanted"
    elif [ -z "$wrong" ] && [ -n "$more" ] && [ -z "$known" ] && [ -n "$(names)" ]; then
        wrong="$disk has partitions and none that is wanted: $(names)"
    fi
    if [ -z "$table" ] || { [ -n "$wrong" ] && [ -n "$order" ]; }; then
        echo "wwinit: partitioning $disk${wrong:+, by the order to wipe it: $wrong}"
        partx --delete "$disk" > /dev/null 2>&1
        written "label: $scheme$LINE$heads$LINE$all" --wipe always --wipe-partitions always
        return
    fi
    [ -z "$wrong" ] || stop "$wrong; with wipe_table the disk is partitioned anew, and all that is on it is lost"
    for each in $remove; do
        echo "wwinit: deleting partition $each of $disk, by order"
        writable "$disk" "its partition $each is to go"
        said=$(sfdisk -q --no-tell-kernel --no-reread --delete "$disk" "$each" 2>&1) || stop "$disk: $(last "$said")"
    done
    if [ -n "$remove" ]; then partx --update "$disk" || stop "the kernel keeps partitions of $disk that were deleted"; fi
    for each in $grow; do
        echo "wwinit: growing partition ${each%:*} of $disk"
        written ",${each#*:}" --wipe never --wipe-partitions never -N "${each%:*}"
    done
    if [ -n "$more" ]; then
        echo "wwinit: adding partitions to $disk"
        written "$more" --wipe never --wipe-partitions always --append
    fi
}

names() {
    while IFS= read -r line; do
        case $line in
            *' name="'*) printf '%s ' "${line#*' name='}" ;;
            "$disk"*) printf '%s ' "${line%% :*}" ;;
        esac
    done << END
$dump
END
}

# A file system or swap space: filesystem DEVICE FORMAT LABEL UUID ORDER SIZE [OPTION...], ORDER `wipe` to make it at each
# boot; label, id, order and size may be empty.
filesystem() {
    asked=$1 format=$2 label=$3 uuid=$4 order=$5 size=$6
    shift 6
    flag=-L most=''
    case $format in
        ext2 | ext3 | ext4) most=16 ;;
        xfs) most=12 ;;
        swap) most=15 ;;
        btrfs) most=255 ;;
        vfat | fat | msdos) format=vfat flag=-n most=11 ;;
    esac
    # A label among the options is one like that of the field: it would be there before the file system is whole.
    left=$#
    [ -n "$most" ] || left=0
    while [ "$left" -gt 0 ]; do
        word=$1 left=$((left - 1))
        shift
        case $word in
            "$flag")
                label=${label:-${1-}}
                [ "$left" -eq 0 ] || { shift && left=$((left - 1)); }
                ;;
            "$flag"?*) word=${word#"$flag"} label=${label:-${word# }} ;;
            *) set -- "$@" "$word" ;;
        esac
    done
    [ "${#label}" -le "${most:-${#label}}" ] ||
        stop "$asked: the label \"$label\" has ${#label} bytes, and $format takes no more than $most"
    part=$(device "$asked") || exit 1
    kind=$(holds "$part") || exit 1
    is=$(value "$part" LABEL)
    if [ -z "$kind" ] || [ "$is" = "$NEW" ]; then
        make "$@"
    elif [ -n "$order" ]; then
        echo "wwinit: $part holds $(described "$part" "$kind"), which is made anew, by order"
        make "$@"
    elif [ "$kind" != "$format" ]; then
        unlike
    elif { [ -n "$label" ] && [ "$label" != "$is" ]; } || { [ -n "$uuid" ] && [ "$(upper "$uuid" | tr -d -)" != "$(upper "$(value "$part" UUID)" | tr -d -)" ]; }; then
        unlike "${label:+, label $label}${uuid:+, id $uuid}"
    fi
}

unlike() {
    stop "$asked ($part) holds $(described "$part" "$kind"), and $format${1-} is wanted; with wipe_filesystem it is made" \
        "anew at each boot, \`wipefs -a\` on the node lets it be made once"
}

# Makes $format on $part. Until it is whole and on the disk it is called $NEW.
make() {
    writable "$part" "$format is to be made on it"
    program=mkfs.$format relabel=''
    case $format in
        swap)
            program=mkswap
            set -- ${label:+-L "$label"} ${uuid:+-U "$uuid"} "$@"
            ;;
        ext2 | ext3 | ext4)
            relabel=e2label
            set -- -q -F -L "$NEW" ${uuid:+-U "$uuid"} "$@"
            ;;
        xfs)
            relabel=xfs_db
            case $label in *' '*) stop "$asked: the label \"$label\" has a blank, which xfs_db cannot give" ;; esac
            set -- -q -f -L "$NEW" ${uuid:+-m "uuid=$uuid"} "$@"
            ;;
        btrfs)
            relabel=btrfs
            set -- -q -f -L "$NEW" ${uuid:+-U "$uuid"} "$@"
            ;;
        vfat)
            relabel=fatlabel
            set -- -I -n "$NEW" ${uuid:+-i "$(echo "$uuid" | tr -d -)"} "$@"
            ;;
        *) [ -z "$label$uuid" ] || stop "$asked: label and id of $format can be set by the options of $program alone" ;;
    esac
    have "$program" "make $format on $asked"
    [ -z "$relabel" ] || have "$relabel" "name what $program made"
    echo "wwinit: making $format on $part, $(mebibytes "$part") MiB"
    said=$(wipefs -q -a "$part" 2>&1) || stop "$part cannot be written: $(last "$said")"
    said=$("$program" "$@" "$part" ${size:+"$size"} 2>&1) || stop "$program fails on $part: $(last "$said")"
    sync
    case $relabel in
        e2label) said=$(e2label "$part" "$label" 2>&1) ;;
        xfs_db) said=$(xfs_db -x -c "label ${label:---}" "$part" 2>&1) ;;
        btrfs) said=$(btrfs filesystem label "$part" "$label" 2>&1) ;;
        fatlabel) if [ -n "$label" ]; then said=$(fatlabel "$part" "$label" 2>&1); else said=$(fatlabel -r "$part" 2>&1); fi ;;
    esac || stop "$relabel fails on $part: $(last "$said")"
    sync
    [ "$(value "$part" LABEL)" != "$NEW" ] || stop "$relabel does not name $part: $(last "$said")"
}

# The root of the node on a device, mounted at $WWTARGET where that is set, and empty: root DEVICE OPTIONS KEEP. Nothing is
# taken away where KEEP is `update` and the root was updated before, which stage-1 does where it sets $WWKEEP; nor of a file
# system that was not made by us; one with an image on it was a root before there was $MARK.
root() {
    asked=$1 keep=${3-}
    part=$(device "$asked") || exit 1
    kind=$(holds "$part") || exit 1
    if [ -z "$kind" ] || [ "$(value "$part" LABEL)" = "$NEW" ]; then
        format=ext4 label='' uuid='' size=''
        command -v mkfs.ext4 > /dev/null || ! command -v mkfs.xfs > /dev/null || format=xfs
        make
        kind=$format
    fi
    [ "$(value "$part" USAGE)" = filesystem ] ||
        stop "$asked ($part) is to be the root and holds $(described "$part" "$kind"); \`wipefs -a\` lets it be made"
    writable "$part" "it is to be the root"
    at=${WWTARGET:-/run/wwinit.root}
    mkdir -p "$at"
    said=$(mount -t "$kind" ${2:+-o "$2"} "$part" "$at" 2>&1) ||
        stop "$asked ($part) is to be the root and holds $(described "$part" "$kind") that cannot be mounted: $(echo "$said" | head -n 1)"
    if [ ! -e "$at/$MARK" ] && [ -e "$at/warewulf/config" ]; then
        echo "wwinit: $part is the root of a node as it was made before: nothing is deleted, and the image goes over it;" \
            "after \`touch /$MARK\` on the node each boot makes it anew, without whatever else is on it"
        if [ -z "${WWTARGET-}" ]; then umount "$at"; fi
        return
    fi
    if [ ! -e "$at/$MARK" ]; then
        for entry in "$at"/* "$at"/.[!.]* "$at"/..?*; do
            if [ "${entry##*/}" = lost+found ] || { [ ! -e "$entry" ] && [ ! -L "$entry" ]; }; then continue; fi
            umount "$at"
            stop "$asked ($part) is to be the root and holds $(described "$part" "$kind") with files of somebody else, as" \
                "${entry##*/}; with wipe_filesystem it is made anew at each boot, \`wipefs -a\` lets it be made once"
        done
        echo "of this node's image, which is put here at each boot" > "$at/$MARK" || stop "$asked ($part) cannot be written"
        sync
    fi
    if [ -e "$at/$KEPT" ]; then
        if [ "$keep" = update ] && [ -n "${WWKEEP-}" ]; then return; fi
        rm -f "$at/$KEPT/whole" # neither of what is half deleted nor of what is laid over it may anybody say so
        sync
        if [ "$keep" = update ]; then
            echo "wwinit: nothing is taken off the root on $part, which this boot cannot update: the image goes over it"
            if [ -z "${WWTARGET-}" ]; then umount "$at"; fi
            return
        fi
    fi
    for entry in "$at"/* "$at"/.[!.]* "$at"/..?*; do
        if [ "${entry##*/}" != "$MARK" ]; then rm -rf "$entry" || stop "${entry##*/} on $asked ($part) cannot be deleted"; fi
    done
    if [ -z "${WWTARGET-}" ]; then umount "$at"; fi
}
