#!/bin/sh
# Makes the .deb from the one-folder program: packaging/linux/build-deb.sh OUT VERSION
set -eu

out=$1
version=$2
machine=$(dpkg --print-architecture)
tree=build/deb
rm -rf "$tree"
install -d "$tree/DEBIAN" "$tree/opt" "$tree/usr/bin" "$tree/usr/share/applications" "$tree/usr/share/metainfo" \
    "$tree/usr/share/icons/hicolor/scalable/apps" "$tree/usr/share/doc/nvfp4-studio"
cp -r "$out/nvfp4-studio" "$tree/opt/nvfp4-studio"
ln -s /opt/nvfp4-studio/nvfp4-studio "$tree/usr/bin/nvfp4-studio"
cp packaging/linux/org.nvfp4studio.Studio.desktop "$tree/usr/share/applications/"
cp packaging/linux/org.nvfp4studio.Studio.metainfo.xml "$tree/usr/share/metainfo/"
cp resources/icons/nvfp4-studio.svg "$tree/usr/share/icons/hicolor/scalable/apps/"
cp LICENSE "$tree/usr/share/doc/nvfp4-studio/copyright"
cat >"$tree/DEBIAN/control" <<CONTROL
Package: nvfp4-studio
Version: $version
Architecture: $machine
Maintainer: The NVFP4 Studio developers <nvfp4-studio@localhost>
Depends: libgl1, libegl1, libglib2.0-0 | libglib2.0-0t64, libxkbcommon0, libdbus-1-3, libfontconfig1, libxcb-cursor0, libxcb-icccm4, libxcb-keysyms1, libxcb-shape0, libxkbcommon-x11-0
Section: science
Priority: optional
Installed-Size: $(du -sk "$tree/opt" | cut -f1)
Description: see every layer of a language model, quantize it, prove what it cost
 NVFP4 Studio opens a checkpoint, shows every layer, quantizes the chosen ones
 and writes packed safetensors that real runtimes load.
CONTROL
dpkg-deb --root-owner-group -Zxz --build "$tree" "$out/nvfp4-studio_${version}_$machine.deb" >/dev/null
check() {
    if command -v "$1" >/dev/null; then
        "$@"
    else
        echo "not checked: $1 is not installed"
    fi
}
check desktop-file-validate "$tree/usr/share/applications/org.nvfp4studio.Studio.desktop"
check appstreamcli validate --no-net "$tree/usr/share/metainfo/org.nvfp4studio.Studio.metainfo.xml"
ls -la "$out"/*.deb
