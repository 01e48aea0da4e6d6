# Partitions and formats the disks of the node. Runs before the root file system exists, or as ww-ignition.service.
config=$PREFIX/warewulf/ignition.json
[ -s "$config" ] || exit 0
for ignition in /usr/bin/ignition /usr/lib/dracut/modules.d/30ignition/ignition; do
    [ -x "$ignition" ] || continue
    "$ignition" --platform=metal --stage=disks --config-cache="$config" || exit
    mkdir -p "$PREFIX/warewulf/run" && : > "$PREFIX/warewulf/run/.ignition-done"
    exit
done
echo "wwinit: the image has no ignition, the disks of this node stay as they are"
exit 1
