# Partitions and formats the disks of the node. Runs before the root file system exists, or as ww-ignition.service.
[ ! -e /run/wwinit.ready ] || exit 0 # as a service, when all is done and mounted
config=$PREFIX/warewulf/ignition.json
[ -s "$config" ] || exit 0
for ignition in /usr/bin/ignition /usr/lib/dracut/modules.d/30ignition/ignition; do
    [ -x "$ignition" ] || continue
    "$ignition" --platform=metal --stage=disks --config-cache="$config" || exit
    mkdir -p "$PREFIX/warewulf/run" && : > "$PREFIX/warewulf/run/.ignition-done"
    exit
done
for other in 10-sfdisk.sh 20-mkfs.sh 20-mkswap.sh; do
    if [ -e "$PREFIX/warewulf/wwinit.d/$other" ]; then exit 0; fi
done
if [ -e "$PREFIX/warewulf/disks.conf" ]; then
    echo "wwinit: there is no ignition here: the disks are prepared without it"
    # shellcheck source=/dev/null
    . "$PREFIX/warewulf/disks.sh"
    # shellcheck source=/dev/null
    . "$PREFIX/warewulf/disks.conf"
    partitions && filesystems && swaps
    exit
fi
where="the image has" instead=''
if [ -n "${PREFIX-}" ] && [ -n "${WWTARGET-}" ]; then # stage-1, whatever the image has
    where="stage-1 has" instead="; a boot in one stage takes that of the image"
fi
echo "$where no ignition, and the resource \`ignition\` of this node has more than disks and filesystems, or none$instead" |
    tee /run/wwinit.why
exit 1
