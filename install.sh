#!/bin/bash
# Installs sdisup on this machine (Debian 12 or 13), or shows it in a container: ./install.sh --demo
#
# All or nothing: before each change the script notes how to undo it. A script that ends early undoes all
# changes, the last one first. Undoing needs no disk space: a file that is replaced keeps another name beside
# its successor until the end, and comes back by a rename.
set -Eeuo pipefail
umask 022
export LC_ALL=C.UTF-8
unset CDPATH
# `su` without `-` gives root a PATH without these.
PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=/usr/bin/python3
code=/usr/lib/sdisup
command=/usr/bin/sdisup
documents=/usr/share/doc/sdisup
configuration=/etc/sdisup/sdisup.toml
state=/var/lib/sdisup
units=/etc/systemd/system
default_recordings=/srv/recordings
header="# Written by sdisup apply"
sysusers=/usr/lib/sysusers.d/sdisup.conf
tmpfiles=/usr/lib/tmpfiles.d/sdisup.conf
needrestart=/etc/needrestart/conf.d/sdisup.conf
importable=/usr/lib/python3/dist-packages/sdisup.pth
lock_rules=/etc/polkit-1/rules.d/00-sdisup-lock.rules
kept=.sdisup-before
kept_units=/etc/sdisup/$kept

say() { printf '%s\n' "$*"; }
warn() { printf 'install.sh: %s\n' "$*" >&2; }
die() {
    said_why=yes
    warn "$*"
    exit 1
}

usage() {
    cat <<'TEXT'
usage: ./install.sh                    install or update sdisup on this machine, as root; ports record on
       ./install.sh --uninstall [--stop]
                                       remove it; recordings, ledger and configuration stay. Refuses while
                                       ports record, unless --stop says to stop them first
       ./install.sh --demo [--keep DIR]  show it in a container that is thrown away again;
                                       --keep copies the recordings to DIR
       ./install.sh --help             say this
TEXT
}

demo() {
    [ -x "$python" ] || die "the demonstration needs python3: apt-get install python3"
    exec python3 "$here/tests/appliance.py" demo "$@"
}

# ---------------------------------------------------------------- all or nothing

undo=() # shell commands; the last one is run first
said_why=""
failed_command=""
left_something=""
work=""

undo_by() { undo+=("$(printf '%q ' "$@")"); }

begin() {
    trap 'failed_command=$BASH_COMMAND' ERR
    trap 'die "interrupted"' INT TERM HUP
    trap 'roll_back $?' EXIT
    exec 9<"$(dirname "$code")"
    flock -n 9 || die "another install.sh is running; wait for it"
    tidy_up
    work=$(mktemp -d -t sdisup-install.XXXXXX)
}

# All is installed. Only tidying up is left; if that fails, nothing is undone for it.
end() {
    trap '' INT TERM HUP
    trap - EXIT ERR
    rm -rf -- "$work" || warn "$work is left; remove it"
    tidy_up || warn "something of the former version is left; ./install.sh removes it when it runs again"
    remove_former_code || warn "former versions are left in $code-*; the next update removes them"
}

# Removes the files that were kept to be put back, also those that a killed run left.
tidy_up() {
    local path leftovers=("$kept_units")
    for path in "$command" "$code" "$documents/README.md" "$sysusers" "$tmpfiles" "$needrestart" "$importable" "$configuration" \
        "$state/applied.json" "$state/schedules.json" "$state/retention.json" /etc/passwd /etc/group /etc/shadow /etc/gshadow; do
        leftovers+=("$path$kept" "$path.new")
    done
    rm -rf -- "${leftovers[@]}"
}

roll_back() {
    local result=$1 action i failures=0
    trap '' INT TERM HUP
    trap - EXIT ERR
    set +e
    [ -n "$said_why" ] || warn "this failed: $failed_command"
    for ((i = ${#undo[@]} - 1; i >= 0; i--)); do
        action=${undo[i]}
        eval "$action" || {
            warn "could not undo: $action"
            failures=$((failures + 1))
        }
    done
    [ -z "$work" ] || rm -rf -- "$work"
    if [ "$failures" != 0 ]; then
        warn "the installation is incomplete; mend what is said above, then run ./install.sh again"
    elif [ "${#undo[@]}" = 0 ]; then
        warn "nothing was changed"
    else
        warn "everything${left_something:+ else} is again as it was before"
    fi
    [ "$result" != 0 ] || result=1
    exit "$result"
}

# Keeps a file under another name, so that a rename over it can be undone.
keep_file() {
    local path=$1
    if [ -e "$path" ] || [ -L "$path" ]; then
        undo_by put_back "$path$kept" "$path"
        ln -T -- "$path" "$path$kept"
    else
        undo_by rm -f -- "$path"
    fi
    undo_by rm -f -- "$path.new"
}

# put_back KEPT PATH: renames KEPT to PATH. If both names still are one file, mv would refuse, and KEPT is removed.
put_back() {
    [ -e "$1" ] || [ -L "$1" ] || return 0
    if [ "$(stat -c %d:%i -- "$1")" = "$(stat -c %d:%i -- "$2" 2>/dev/null)" ]; then
        rm -f -- "$1"
    else
        mv -fT -- "$1" "$2"
    fi
}

# put_file SOURCE DESTINATION MODE: writes a file that is missing or differs, and says so.
put_file() {
    local source=$1 destination=$2 mode=$3
    if cmp -s -- "$source" "$destination" && [ "$(stat -c %a -- "$destination")" = "$mode" ]; then
        return
    fi
    make_directory "$(dirname "$destination")" -m 755
    keep_file "$destination"
    install -m "$mode" -- "$source" "$destination.new"
    mv -fT -- "$destination.new" "$destination"
    say "wrote $destination"
}

# make_directory PATH OPTIONS-OF-INSTALL...: makes a directory that is missing.
make_directory() {
    local path=$1
    shift
    [ ! -d "$path" ] || return 0
    undo_by remove_directory "$path"
    install -d "$@" -- "$path"
}

# Keeps a directory with files in it: a port that was started meanwhile may have written them.
remove_directory() {
    [ ! -d "$1" ] || rmdir -- "$1" 2>/dev/null || {
        warn "left $1: there is something in it"
        left_something=yes
    }
}

# ---------------------------------------------------------------- before anything is changed

need_root() { [ "$(id -u)" = 0 ] || die "must be run as root: sudo ./install.sh $*"; }

check_machine() {
    local name="an unknown system" id="" version="" file tool
    if [ -r /etc/os-release ]; then
        # shellcheck disable=SC1091
        { read -r id && read -r version && read -r name; } < <(
            . /etc/os-release
            printf '%s\n' "${ID:-}" "${VERSION_ID:-}" "${PRETTY_NAME:-${ID:-an unknown system}}"
        )
    fi
    case "$id $version" in
    "debian 12" | "debian 13") ;;
    *) die "not supported: this is $name. sdisup runs on Debian 12 (bookworm) and 13 (trixie)" ;;
    esac
    for tool in systemctl systemd-sysusers systemd-tmpfiles; do
        command -v "$tool" >/dev/null || die "needs systemd; there is no $tool here: apt-get install systemd"
    done
    for file in sdisup/__main__.py units/sdi-record@.service.j2 README.md; do
        [ -r "$here/$file" ] || die "$here is not a complete copy of sdisup: $file is missing"
    done
    if [ -e "$command" ] && ! grep -q "$code" "$command"; then
        die "$command is another program, and is not overwritten; move it away"
    fi
    # systemd-sysusers makes both or neither.
    if getent passwd sdisup >/dev/null && ! getent group sdisup >/dev/null; then
        die "there is a user sdisup without a group of that name: groupadd --system sdisup, then run ./install.sh again"
    fi
    version_installed=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$here/sdisup/__init__.py")
    say "sdisup $version_installed on $name"
}

# ---------------------------------------------------------------- the configuration

install_configuration() {
    make_directory "$(dirname "$configuration")" -m 755
    make_directory "$configuration.d" -m 755
    if [ -e "$configuration" ]; then
        say "configuration: $configuration, left as it is"
    else
        "$python" -I -B -c 'import sys; sys.path.insert(0, sys.argv[1])
from sdisup.config.text import starter_toml
sys.stdout.write(starter_toml())' "$here" >"$work/sdisup.toml"
        put_file "$work/sdisup.toml" "$configuration" 644
        say "configuration: a starter; edit it, then run: sdisup apply"
    fi
}

# Reads the configuration with the new version's code, before that version is installed.
read_configuration() {
    "$python" -I -B - "$here" "$configuration" >"$work/settings" <<'TEXT' ||
import sys

sys.path.insert(0, sys.argv[1])
from sdisup.config.settings import Settings
from sdisup.errors import ConfigError

try:
    settings = Settings.load(sys.argv[2])
except ConfigError as error:
    sys.exit("\n".join([*error.problems, *([f"hint: {error.hint}"] if error.hint else [])]))
directories = {settings.recordings, *(port.recordings for port in settings.ports.values())}
print(settings.ffmpeg, *sorted(directories), sep="\n")
TEXT
        die "the configuration is not valid for sdisup $version_installed; mend it, then run ./install.sh again"
    { read -r ffmpeg && mapfile -t recordings; } <"$work/settings"
}

# ---------------------------------------------------------------- Debian's packages

install_packages() {
    local package missing=() known
    known=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || :)
    for package in "$@"; do
        grep -qxF "installed $package" <<<"$known" || missing+=("$package")
    done
    if [ "${#missing[@]}" != 0 ]; then
        say "packages: installing ${missing[*]}"
        fetch_packages "${missing[@]}"
        run_apt "could not install ${missing[*]}" install -y --no-install-recommends "${missing[@]}"
    fi
}

# Downloads all packages before any is installed: most failures happen here, where nothing has changed yet.
fetch_packages() {
    local new=()
    apt_get update -o APT::Update::Error-Mode=any >"$work/apt" 2>&1 || {
        grep -E '^[EW]:' "$work/apt" | head -n 3 >&2
        warn "apt-get update failed; is there a network? Going on with the package lists that are there"
    }
    run_apt "cannot install $*" install --simulate --no-install-recommends "$@"
    # `Inst NAME (VERSION …)` is a new package; `Inst NAME [OLD] (…` replaces another version and is not undone.
    mapfile -t new < <(sed -n 's/^Inst \([^ ]*\) (.*/\1/p' "$work/apt")
    run_apt "could not fetch $*" install -y --download-only --no-install-recommends "$@"
    undo_by remove_packages "${new[@]}"
}

apt_get() {
    # needrestart must not restart a port that records.
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -q -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold "$@" </dev/null
}

# run_apt WHAT-WENT-WRONG ARGUMENTS...
run_apt() {
    local trouble=$1
    shift
    apt_get "$@" >"$work/apt" 2>&1 && return
    grep -E '^(E:|W:|Err|dpkg:)' "$work/apt" >&2 || tail -n 5 "$work/apt" >&2
    die "apt-get $trouble"
}

remove_packages() {
    local package left=()
    for package in "$@"; do
        if dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qvx not-installed; then
            left+=("$package")
        fi
    done
    [ "${#left[@]}" = 0 ] || dpkg --purge "${left[@]}" >"$work/dpkg" 2>&1 || {
        cat "$work/dpkg" >&2
        return 1
    }
}

needed_packages() {
    printf '%s\n' python3 python3-gi python3-pydbus python3-jinja2 python3-tomli-w
    dpkg-query -W dbus-broker >/dev/null 2>&1 || printf 'dbus\n'
    # Debian's FFmpeg is needed only where the configuration names it.
    [ "$(realpath -m -- "$ffmpeg")" != "$(realpath -m /usr/bin/ffmpeg)" ] || printf 'ffmpeg\n'
}

# ---------------------------------------------------------------- the code

assemble_code() {
    local tree=$1
    mkdir -p "$tree/sdisup/units"
    (cd "$here" && find sdisup -name '*.py' -print0 | xargs -0r cp --parents -t "$tree" -- sdisup/py.typed)
    cp -- "$here"/units/* "$tree/sdisup/units/"
    cat >"$tree/__main__.py" <<'TEXT'
"""What the units run: python3 -I -S /usr/lib/sdisup/__main__.py run …"""

import os
import sys

# /usr/lib/sdisup is a link, and an update points it to another directory. No process may mix the two versions.
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from sdisup.__main__ import main

sys.exit(main())
TEXT
    cat >"$work/command" <<'TEXT'
#!/usr/bin/python3 -IS
import os
import sys

# -S: `sdisup status` needs no libraries; all else loads site itself (sdisup/cli/main.py).
# The link is resolved once, so that an update cannot mix two versions in this process.
sys.path.insert(0, os.path.realpath("/usr/lib/sdisup"))
from sdisup.cli.main import main

sys.exit(main())
TEXT
    # For `import sdisup` in the system's Python, of whatever version (site.py runs such a line at each start). The link is
    # resolved once here too.
    cat >"$work/importable" <<'TEXT'
import os, sys; sys.path.append(os.path.realpath("/usr/lib/sdisup"))
TEXT
}

# Every version has a directory of its own. /usr/lib/sdisup is a link to the current one, and one rename points
# it to another: at every moment a runner that systemd starts finds one complete version. The former version
# stays until the next update, for the commands that still run from it.
install_code() {
    local new former="" compiled
    compiled=sdisup/runner/__pycache__/main.$("$python" -I -S -c 'import sys; print(sys.implementation.cache_tag)').pyc
    assemble_code "$work/code"
    [ ! -L "$code" ] || former=$(readlink -- "$code")
    if [ -n "$former" ] && [ -e "$code/$compiled" ] &&
        diff -rq --exclude=__pycache__ -- "$work/code" "$code/" >/dev/null; then
        say "code: $code -> $former, unchanged"
    else
        "$python" -I -c 'import gi, jinja2, pydbus, tomli_w' || die "Debian's Python packages do not work; see above"
        new=$(mktemp -u "$code-$version_installed.XXXXXX")
        undo_by rm -rf -- "$new"
        cp -r -- "$work/code" "$new"
        compile_code "$new" >&2 || die "the code could not be compiled"
        "$python" -I -S "$new/__main__.py" --version >/dev/null || die "the code does not run; see above"
        # After a power cut the link must not point to empty files.
        find "$new" -type f -exec sync -- {} +
        turn_link "$(basename "$new")"
        current_code=$(basename "$new")
        former_code=$former
        say "code: $code -> $(basename "$new")"
    fi
    put_file "$work/command" "$command" 755
    put_file "$work/importable" "$importable" 644
    put_file "$here/README.md" "$documents/README.md" 644
}

# What runs for ever is compiled without its docstrings, which would be in the memory of each runner. Not by -OO: Python
# would look for all of its own library in that form, which Debian does not have, and compile it at each start.
compile_code() {
    "$python" -I -m compileall -q -s "$1" -p "$code" "$1" && "$python" -I - "$1" "$code" <<'TEXT'
import importlib.util, pathlib, py_compile, sys

new, code = map(pathlib.Path, sys.argv[1:])
for room in ("contract", "ledger", "runner"):
    for path in new.joinpath("sdisup", room).glob("*.py"):
        compiled = importlib.util.cache_from_source(str(path))
        py_compile.compile(str(path), compiled, str(code / path.relative_to(new)), doraise=True, optimize=2)
TEXT
}

turn_link() {
    if [ -d "$code" ] && [ ! -L "$code" ]; then
        # The first versions of this script made a directory, not a link.
        undo_by mv -T -- "$code-former" "$code"
        mv -T -- "$code" "$code-former"
    fi
    keep_file "$code"
    ln -sfT -- "$1" "$code.new"
    mv -fT -- "$code.new" "$code"
}

remove_former_code() {
    local directory
    [ -n "$current_code" ] || return 0
    for directory in "$code"-*; do
        case ${directory##*/} in
        "$current_code" | "$former_code") ;;
        *) rm -rf -- "$directory" || return ;;
        esac
    done
}

# ---------------------------------------------------------------- user, directories, units

install_system_files() {
    local directory
    put_file "$here/units/sdisup.sysusers.conf" "$sysusers" 644
    put_file "$here/units/sdisup.tmpfiles.conf" "$tmpfiles" 644
    # Also where needrestart is not installed yet.
    make_directory /etc/needrestart -m 755
    put_file "$here/units/sdisup.needrestart.conf" "$needrestart" 644
    if ! getent passwd sdisup >/dev/null; then
        make_user
        say "user: sdisup"
    fi
    [ -d /run/sdisup ] || undo_by rm -rf -- /run/sdisup
    for directory in /run/sdisup/requests "$state" "$state/ledger" "$state/protected" "$state/orders"; do
        [ -d "$directory" ] || undo_by remove_directory "$directory"
    done
    systemd-tmpfiles --create sdisup.conf
    for directory in "${recordings[@]}"; do
        # Other directories may be mount points whose disk is missing now; whoever configures them makes them.
        if [ "$directory" = "$default_recordings" ] && is_missing "$directory"; then
            make_directory "$directory" -o sdisup -g sdisup -m 2775
            say "recordings: $directory"
        fi
    done
}

# A disk that hangs is not missing.
is_missing() {
    local code=0
    timeout --signal=KILL 5 test -d "$1" || code=$?
    [ "$code" = 1 ]
}

# systemd-sysusers replaces these files. userdel could undo that, but is not on every Debian.
make_user() {
    local name
    undo_by remove_user
    for name in passwd group shadow gshadow; do
        [ ! -e "/etc/$name" ] || ln -T -- "/etc/$name" "/etc/$name$kept"
    done
    systemd-sysusers sdisup.conf
    stat -c '%i %n' /etc/passwd /etc/group /etc/shadow /etc/gshadow >"$work/users" 2>/dev/null || :
}

remove_user() {
    local name inode
    if [ -n "$left_something" ]; then
        warn "left the user sdisup, who owns it"
        rm -f -- "/etc/"{passwd,group,shadow,gshadow}"$kept"
        # Not a plain `return`, which in a trap returns the status from before the trap.
        return 0
    fi
    for name in passwd group shadow gshadow; do
        [ -e "/etc/$name$kept" ] || continue
        inode=$(stat -c %i -- "/etc/$name")
        if [ ! -e "$work/users" ] || grep -qx "$inode /etc/$name" "$work/users"; then
            put_back "/etc/$name$kept" "/etc/$name"
        else
            # Another program changed the file since.
            rm -f -- "/etc/$name$kept"
        fi
    done
}

# The unit files, drop-ins and links of sdisup's units, also those that others made, relative to their directory.
unit_files() {
    find . -maxdepth 2 \( -path '*/sdi-record*' -o -path '*/sdi-ledger*' -o -path '*/sdi-schedule*' \
        -o -path '*/sdi-retention*' -o -path '*/sdi-offload@*' \) ! -type d -print0
}

keep_units() {
    undo_by rm -rf -- "$kept_units"
    mkdir -- "$kept_units"
    (cd "$units" && unit_files | xargs -0r cp -al --parents -t "$kept_units" --)
    undo_by restore_units
    keep_file "$state/applied.json"
    keep_file "$state/schedules.json"
    keep_file "$state/retention.json"
}

restore_units() {
    local file
    if [ -d /run/systemd/system ] && [ ! -e "$kept_units/sdi-record@.service" ]; then
        # A first installation: there are no former units for what it started.
        systemctl stop 'sdi-retention*' 'sdi-schedule*' 'sdi-offload@*' 'sdi-record@*.service' 'sdi-record-retry@*.service' 'sdi-ledger*.service'
    fi
    (
        cd "$units" || exit 1
        while IFS= read -rd '' file; do
            if [ ! -e "$kept_units/$file" ] && [ ! -L "$kept_units/$file" ] && is_ours "$file"; then rm -f -- "$file"; fi
        done < <(unit_files)
        cd "$kept_units" || exit 1
        while IFS= read -rd '' file; do
            mkdir -p -- "$(dirname "$units/$file")" && put_back "$file" "$units/$file" || exit 1
        done < <(find . ! -type d -print0)
        remove_empty_unit_directories
    ) || return 1
    rm -rf -- "$kept_units"
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
}

is_ours() {
    [ -L "$1" ] || [ "$(head -c ${#header} -- "$1" | tr -d '\0')" = "$header" ]
}

remove_empty_unit_directories() {
    find "$units" -mindepth 1 -maxdepth 1 -type d \( -name 'sdi-record*' -o -name 'sdi-ledger*' \) -empty -delete
}

apply_configuration() {
    keep_units
    if [ ! -d /run/systemd/system ]; then
        say "systemd does not run here; after booting with it, run: sdisup apply"
        return
    fi
    say_what_was_stopped
    "$command" apply || die "sdisup apply failed, see above; mend what it says, then run ./install.sh again"
    # The ledger's writer restarts with the new code. No recording needs the writer, and the script does not wait.
    systemctl --no-block try-restart sdi-ledger.service
}

# `--uninstall --stop` leaves in /run which ports were stopped: they stay stopped, as at a `sdisup stop`.
say_what_was_stopped() {
    local stopped=() file
    [ ! -e "$units/sdi-record@.service" ] || return 0
    for file in /run/sdisup/[0-9]*.json; do
        if grep -qs '"state": "stopped"' "$file"; then stopped+=("$(basename "$file" .json)"); fi
    done
    [ "${#stopped[@]}" = 0 ] || say "stopped before: stays so until the next boot, or: sdisup start ${stopped[*]}"
}

install_all() {
    local version_installed="" current_code="" former_code="" ffmpeg="" recordings=() needed
    need_root
    begin
    check_machine
    install_packages python3
    install_configuration
    read_configuration
    mapfile -t needed < <(needed_packages)
    install_packages "${needed[@]}"
    say "packages: all there"
    install_code
    install_system_files
    apply_configuration
    end
    say "done in $SECONDS s: sdisup status"
}

# ---------------------------------------------------------------- and away again

# The ports that systemd runs or tries to run, also those that are no longer configured.
running_ports() {
    [ -d /run/systemd/system ] || return 0
    systemctl list-units --all --plain --no-legend --full 'sdi-record@*.service' 'sdi-record-retry@*.service' |
        awk '$3 != "inactive" && $3 != "failed" { print $1 }'
}

stop_ports() {
    local running
    running=$(running_ports)
    [ -n "$running" ] || return 0
    if [ "$1" != --stop ]; then
        warn "these ports record, or try to:"
        printf '%s\n' "$running" >&2
        die "stop them first (sdisup stop --all), or run: ./install.sh --uninstall --stop; nothing was changed"
    fi
    say "stopping: ${running//$'\n'/ }"
    # It notes of a port without a runner too that it was stopped. It knows no port that is not configured any more.
    "$command" stop --all >/dev/null 2>&1 || :
    # More than once: a port that had to be killed has a retry unit, which would start the port again.
    for _ in 1 2 3; do
        systemctl stop 'sdi-record*.target' 'sdi-record@*.service' 'sdi-record-retry@*.service'
        running=$(running_ports)
        [ -n "$running" ] || return 0
    done
    die "still running: ${running//$'\n'/ }; nothing was removed"
}

# The directories of the recordings, by the last apply.
recording_directories() {
    "$python" -I -S -c 'import json, sys
ports = json.load(open(sys.argv[1]))["ports"].values()
print(*sorted({port["recordings"] for port in ports}), sep="\n")' "$state/applied.json" 2>/dev/null |
        sed '/^$/d' || :
}

remove_units() {
    local file name
    # As `systemctl disable` does, also for an instance whose template is gone.
    find "$units" -mindepth 2 -maxdepth 2 \( -path '*.wants/sdi-record*' -o -path '*.wants/sdi-offload@*' \) -type l -delete
    # Stopping sdi-ledger-flush.service enters the ports' last events into the ledgers.
    [ ! -d /run/systemd/system ] || systemctl stop 'sdi-retention*' 'sdi-offload@*' 'sdi-schedule*' 'sdi-record*.target' 'sdi-ledger*.service'
    (
        cd "$units"
        while IFS= read -rd '' file; do
            name=${file#./}
            if [ ! -L "$file" ] && is_ours "$file"; then
                rm -f -- "$file"
                say "removed $units/$name"
            else
                say "left $units/$name, which sdisup did not write"
            fi
        done < <(unit_files | sort -z)
    )
    remove_empty_unit_directories
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl reset-failed 'sdi-retention*' 'sdi-schedule*' 'sdi-offload@*' 'sdi-record@*.service' 'sdi-record-retry@*.service' 'sdi-ledger*.service' \
            2>/dev/null || :
    fi
}

remove_files() {
    tidy_up
    if [ ! -L "$lock_rules" ] && [ -f "$lock_rules" ] && head -n 1 "$lock_rules" | grep -q "^//${header#\#}"; then
        rm -f -- "$lock_rules"
    fi
    rm -f -- "$command" "$sysusers" "$tmpfiles" "$needrestart" "$importable" "$state/applied.json" \
        "$state/schedules.json" "$state/retention.json"
    rm -rf -- "$state/orders" "$state/retention"
    rmdir --ignore-fail-on-non-empty -- "$(dirname "$needrestart")" /etc/needrestart 2>/dev/null || :
    rm -rf -- "$documents" "$code" "$code"-*
    # Which ports were stopped is kept for a new installation, until the machine goes down.
    [ ! -d /run/sdisup ] || find /run/sdisup -mindepth 1 ! -name '[0-9]*.json' -delete
    rmdir --ignore-fail-on-non-empty -- /run/sdisup 2>/dev/null || :
    say "removed $code, $command and what belongs to them"
}

uninstall() {
    local directories
    case "${1:-}" in
    "" | --stop) ;;
    *) usage >&2 && exit 2 ;;
    esac
    need_root --uninstall
    trap 'warn "this failed: $BASH_COMMAND"; warn "run ./install.sh --uninstall again"' ERR
    if [ ! -e "$code" ] && [ ! -L "$code" ] && [ ! -e "$command" ] && [ ! -e "$units/sdi-record@.service" ]; then
        say "sdisup is not installed"
        return
    fi
    if [ -e "$command" ] && ! grep -q "$code" "$command"; then
        die "$command is another program; nothing was changed"
    fi
    stop_ports "${1:-}"
    directories=$(recording_directories)
    remove_units
    remove_files
    say "left as they are:"
    say "  recordings     $(tr '\n' ' ' <<<"${directories:-$default_recordings}")"
    say "  ledger         $state/ledger"
    say "  configuration  $(dirname "$configuration")"
    say "  user           sdisup, which owns the recordings and the ledger"
    say "  packages       Debian's python3-pydbus, python3-jinja2, python3-tomli-w, ffmpeg and theirs"
}

case "${1:-}" in
--demo)
    shift
    demo "$@"
    ;;
--help | -h)
    usage
    ;;
--uninstall)
    shift
    [ $# -le 1 ] || { usage >&2 && exit 2; }
    uninstall "$@"
    ;;
"")
    install_all
    ;;
*)
    usage >&2
    exit 2
    ;;
esac
