#!/bin/sh
# Make the checkout ready: system packages (as root on Debian), .venv, the extensions built in place.
# Safe to repeat: seconds when nothing changed. Nothing is written outside the checkout but by apt.
set -eu
cd "$(dirname "$0")/.."

# What it takes to build, to boot a virtual machine, and to compare with other implementations.
BUILD="gcc libc6-dev libxxhash0 libyaml-0-2 python3"
RUN="ipxe iproute2 mmdebstrap ipmitool"
TEST="qemu-system-x86 ovmf cpio libarchive-tools initramfs-tools-core util-linux zstd pigz nftables openssh-client curl dnsmasq-base xz-utils shellcheck busybox skopeo umoci docker-registry kmod procps systemd wget wrk"
TEST="$TEST tftp-hpa atftp isc-dhcp-client isc-dhcp-relay qemu-system-arm qemu-efi-aarch64 debian-archive-keyring openipmi dropbear-bin squashfs-tools erofs-utils fdisk e2fsprogs xfsprogs dosfstools nginx"

missing=""
if command -v dpkg-query >/dev/null 2>&1; then
    for package in $BUILD $RUN $TEST; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
    done
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
    [ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["include"])' 2>/dev/null)/Python.h" ] || missing="$missing python3-dev"
fi
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
        echo "setup: installing$missing"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        echo "setup: not root, so these packages were not installed:$missing" >&2
    fi
fi

[ -x .venv/bin/python ] || python3 -m venv .venv
want=$(cat pyproject.toml tools/setup.sh | sha256sum)
if [ "$(cat .venv/installed 2>/dev/null)" != "$want" ]; then
    echo "setup: installing Python packages"
    .venv/bin/python tools/requirements.py | .venv/bin/pip install -q -r /dev/stdin
    SP=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    echo "$PWD/src" > "$SP/wwfast.pth"
    printf '#!/bin/sh\nexec "%s" -m wwfast "$@"\n' "$PWD/.venv/bin/python" > .venv/bin/wwfast
    chmod +x .venv/bin/wwfast
    echo "$want" > .venv/installed
fi

built=$(find setup.py src/wwfast/_ext -name '*.py[xd]' -o -name '*.h' -o -name 'c_*.c' -o -name setup.py | LC_ALL=C sort | xargs cat | sha256sum)
if [ "$(cat .venv/built 2>/dev/null)" != "$built" ]; then
    echo "setup: building the extensions"
    .venv/bin/python setup.py -q build_ext --inplace >/dev/null
    echo "$built" > .venv/built
fi
touch src/wwfast/_ext/*.so # git may have written a source anew without changing it

.venv/bin/python -m compileall -q src/wwfast # as pip does; some environments forbid Python to do it on the way
