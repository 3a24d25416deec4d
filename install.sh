#!/bin/bash
# Installs sdisup on this machine (Debian 13), or shows it in a container: ./install.sh --demo
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
code=/usr/lib/sdisup
recordings=/srv/recordings

say() { printf '%s\n' "$*"; }
die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

usage() {
    cat <<'TEXT'
usage: ./install.sh                    install or update sdisup on this machine, as root
       ./install.sh --demo [--keep DIR]  show it in a container that is thrown away again;
                                       --keep copies the recordings to DIR
TEXT
}

demo() {
    command -v python3 >/dev/null || die "the demonstration needs python3: apt-get install python3"
    exec python3 "$here/tests/appliance.py" demo "$@"
}

check_machine() {
    [ "$(id -u)" = 0 ] || die "must be run as root: sudo ./install.sh"
    [ -r /etc/os-release ] || die "this is not Debian 13: there is no /etc/os-release"
    # shellcheck disable=SC1091
    local system
    system=$(. /etc/os-release && printf '%s %s' "${ID:-unknown}" "${VERSION_ID:-unknown}")
    [ "$system" = "debian 13" ] || die "this is $system; supported is Debian 13"
}

# The configured FFmpeg; Debian's own is installed only where it is the one that records.
configured_ffmpeg() {
    [ -r /etc/sdisup/sdisup.toml ] || return 0
    sed -n 's/^[[:space:]]*ffmpeg[[:space:]]*=[[:space:]]*"\(.*\)".*/\1/p' /etc/sdisup/sdisup.toml | tail -n 1
}

install_packages() {
    local wanted=(python3 python3-gi python3-pydbus python3-jinja2 python3-tomli-w) missing=() package ffmpeg
    ffmpeg=$(configured_ffmpeg)
    [ -n "$ffmpeg" ] && [ "$ffmpeg" != /usr/bin/ffmpeg ] || wanted+=(ffmpeg)
    for package in "${wanted[@]}"; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    if [ "${#missing[@]}" = 0 ]; then
        say "packages: all there"
        return
    fi
    say "packages: installing ${missing[*]}"
    apt-get update -q >/dev/null || die "apt-get update failed; is there a network?"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install ${missing[*]}"
}

# The new code is made beside the old one and takes its place in one step: ports that record go on,
# and nothing starts from half a copy.
install_code() {
    local new=$code.new old=$code.old
    rm -rf "$new" "$old"
    install -d -m 0755 "$new/sdisup/units"
    install -m 0644 "$here"/sdisup/*.py "$here/sdisup/py.typed" "$new/sdisup/"
    install -m 0644 "$here"/units/* "$new/sdisup/units/"
    install -m 0644 "$here/sdisup/__main__.py" "$new/__main__.py"
    /usr/bin/python3 -I -m compileall -q -s "$new" -p "$code" "$new" || die "the code does not compile"
    [ ! -e "$code" ] || mv "$code" "$old"
    mv "$new" "$code"
    rm -rf "$old"
    cat >/usr/bin/sdisup.new <<'TEXT'
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/usr/lib/sdisup")
from sdisup.cli import main

sys.exit(main())
TEXT
    chmod 0755 /usr/bin/sdisup.new
    mv /usr/bin/sdisup.new /usr/bin/sdisup
    install -D -m 0644 "$here/README.md" /usr/share/doc/sdisup/README.md
    say "code: $code, command: /usr/bin/sdisup"
}

install_system_files() {
    install -D -m 0644 "$here/units/sdisup.sysusers.conf" /usr/lib/sysusers.d/sdisup.conf
    install -D -m 0644 "$here/units/sdisup.tmpfiles.conf" /usr/lib/tmpfiles.d/sdisup.conf
    systemd-sysusers sdisup.conf
    systemd-tmpfiles --create sdisup.conf
    # The recordings' directory may be a mount point: made where it is missing, otherwise left as it is.
    [ -d "$recordings" ] || install -d -o sdisup -g sdisup -m 2775 "$recordings"
    say "user: sdisup, directories: /run/sdisup /var/lib/sdisup $recordings"
}

install_configuration() {
    install -d -m 0755 /etc/sdisup /etc/sdisup/sdisup.toml.d
    if [ -e /etc/sdisup/sdisup.toml ]; then
        say "configuration: /etc/sdisup/sdisup.toml, left as it is"
        return
    fi
    /usr/bin/python3 -I -c 'import sys; sys.path.insert(0, "/usr/lib/sdisup")
from sdisup.config import starter_toml
sys.stdout.write(starter_toml())' >/etc/sdisup/sdisup.toml.new
    mv /etc/sdisup/sdisup.toml.new /etc/sdisup/sdisup.toml
    say "configuration: /etc/sdisup/sdisup.toml, a starter; edit it, then run: sdisup apply"
}

apply_configuration() {
    if [ ! -d /run/systemd/system ]; then
        say "systemd does not run here; after booting with it, run: sdisup apply"
        return
    fi
    sdisup apply || die "sdisup apply failed; mend what it says, then run: sdisup apply"
}

case "${1:-}" in
--demo)
    shift
    demo "$@"
    ;;
--help | -h)
    usage
    ;;
"")
    check_machine
    install_packages
    install_code
    install_system_files
    install_configuration
    apply_configuration
    say "done: sdisup status"
    ;;
*)
    usage >&2
    exit 2
    ;;
esac
