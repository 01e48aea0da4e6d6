#!/bin/sh
# Unit and property tests on Python 3.13: `make test-313` (TESTS="..." for others), in a Debian 13 made once, as root.
# The checkout is copied into it, so nothing of Debian 12 is used; .cache/debian-13-* may be deleted at any time.
set -eu
cd "$(dirname "$0")/.."

PACKAGES="gcc,libc6-dev,libxxhash0,libyaml-0-2,python3,python3-dev,python3-venv,python3-pip,zstd,cpio,pigz,xz-utils"
PACKAGES="$PACKAGES,util-linux,iproute2,procps,busybox,kmod,curl,openssh-client,libarchive-tools,skopeo,umoci,make,git"
PACKAGES="$PACKAGES,ca-certificates,squashfs-tools,erofs-utils,libcap2-bin,tar,gzip,dash,dnsmasq-base,systemd,shellcheck"
PACKAGES="$PACKAGES,e2fsprogs,xfsprogs,dosfstools,fdisk"
[ "$(id -u)" = 0 ] || { echo "test-313: needs root" >&2; exit 1; }

home=.cache/debian-13-$(echo "$PACKAGES" | sha256sum | cut -c1-12)
if [ ! -d "$home/rootfs" ]; then
    echo "test-313: making a Debian 13 in $home"
    mkdir -p "$home"
    rm -rf "$home/partial"
    mmdebstrap --quiet --variant=minbase --include="$PACKAGES" trixie "$home/partial"
    mv "$home/partial" "$home/rootfs"
fi
root=$(realpath "$home/rootfs")

rm -rf "$root/checkout"
mkdir "$root/checkout"
git ls-files -co --exclude-standard -z | tar --null --files-from=- --ignore-failed-read -cf - | tar -xf - -C "$root/checkout"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt" # those of a site, too
cat >"$root/run-tests" <<'INSIDE'
set -eu
cd /checkout
[ -x /venv/bin/python ] || python3 -m venv /venv
/venv/bin/python tools/requirements.py >/venv/wanted
cmp -s /venv/wanted /venv/installed || /venv/bin/pip install -q --disable-pip-version-check -r /venv/wanted
cp /venv/wanted /venv/installed
echo /checkout/src >"$(/venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/wwfast.pth"
printf '#!/bin/sh\nexec /venv/bin/python -m wwfast "$@"\n' >/venv/bin/wwfast
chmod +x /venv/bin/wwfast
ln -sfn /venv .venv
/venv/bin/python setup.py -q build_ext --inplace >/dev/null
/venv/bin/python -V
/venv/bin/python -m pytest -q -m "not soak and not vm" "$@" # a child of this shell, which collects orphans as init does
exit $?
INSIDE
export root TESTS="${TESTS:-tests/unit tests/property}"
# shellcheck disable=SC2016
exec unshare --mount --pid --fork --kill-child sh -euc '
    mount --make-rprivate /
    mount --bind "$root" "$root" # a mount of its own: mount namespaces and mountinfo below look as on a machine
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    exec chroot "$root" /usr/bin/env -u TMPDIR -u PYTHONPATH PATH=/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        sh /run-tests $TESTS'
