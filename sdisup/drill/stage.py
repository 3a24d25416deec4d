"""The stage of a drill: units, directories and a disk of its own, all below /run and bound to the command's life.

None of the drill's units outlives the command. `sdi-drill.scope` holds the command's process. `sdi-drill.service`
(units/sdi-drill.service.j2) is bound to the scope; it makes directories and disk, and removes them. The ports'
`sdi-drill@N.service` and the ledger writer's `sdi-drill-ledger.service` are bound to `sdi-drill.service`. So systemd
cleans up within seconds after a kill -9 of the command, and RuntimeMaxSec= kills a command that hangs. The units of
the ports and of the writer are the real ones, as apply renders them, with other names and places.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import NoReturn

import jinja2

from sdisup.config.settings import Port, Settings, parse_settings
from sdisup.config.table import MAX_PORTS, SOURCE_LIMITS
from sdisup.contract.files import replace_file
from sdisup.contract.programs import GIVEN_NAME, Program, become, says
from sdisup.control.systemd import DONE, Systemd
from sdisup.control.units import (
    LEDGER_WRITER,
    RUNNER,
    Machine,
    drop_in_path,
    quote,
    quote_all,
    render,
    template_directory,
)
from sdisup.drill import lost_signal as drill_signal
from sdisup.encode.command import Capabilities
from sdisup.errors import SdisupError
from sdisup.sources.test import Pattern
from sdisup.sources.videomaster import Videomaster

DIRECTORY = "/run/sdisup-drill"
RUN, LEDGER, RECORDINGS = f"{DIRECTORY}/run", f"{DIRECTORY}/ledger", f"{DIRECTORY}/recordings"
SIGNAL = f"{DIRECTORY}/signal"
UNIT_DIRECTORY = "/run/systemd/system"
SCOPE, STAGE, PORTS = "sdi-drill.scope", "sdi-drill.service", "sdi-drill@*.service"
WRITER = "sdi-drill-ledger.service"
DRILL_HEADER = "# Written by sdisup drill, and gone when it ends."
# No real port can have one of these indexes.
PLAIN_PORT, SIGNAL_PORT = MAX_PORTS, MAX_PORTS + 1
DISK_BYTES = 48 << 20
NEEDED_BYTES = DISK_BYTES + (16 << 20)
LONGEST_S = 300
# A unit names this in FFmpeg's place while words are replaced in it, since FFmpeg's path may hold any words.
_FFMPEG = "/@ffmpeg@"
RATE = 25


def unit(index: int) -> str:
    return f"sdi-drill@{index}.service"


def check_machine() -> None:
    """Raises SdisupError where no drill can run."""
    if os.geteuid() != 0:
        raise SdisupError("a drill kills and freezes processes of the user sdisup", "run it as root: sudo sdisup drill")
    if not os.path.isdir("/run/systemd/system"):
        raise SdisupError("systemd does not run on this machine", "sdisup needs a system booted with systemd")
    space = os.statvfs("/run")
    free_bytes = space.f_bavail * space.f_frsize
    if free_bytes < NEEDED_BYTES:
        text = f"/run has {free_bytes / 1e6:.0f} MB free, and a drill needs {NEEDED_BYTES / 1e6:.0f} MB of memory there"
        raise SdisupError(text, "free some: df /run; du -x /run")


def is_in_scope() -> bool:
    """Whether this process is in the drill's scope already."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        return any(line.rstrip("\n").endswith(f"/{SCOPE}") for line in file)


def enter_scope() -> NoReturn:
    """Become this same command in the drill's scope. Raises SdisupError while another drill runs."""
    with Systemd() as systemd:
        state = systemd.units(SCOPE).get(SCOPE)
    if state is not None and state.active not in ("inactive", "failed"):
        raise SdisupError("a drill is running already", f"it ends within minutes; or end it: systemctl stop {SCOPE}")
    # systemd may still be removing the stage of a killed drill, which has the names that this drill will use.
    _systemctl("stop", STAGE)
    command = ["systemd-run", "--scope", "--quiet", "--collect", f"--unit={SCOPE}"]
    command += ["--description=sdisup drill", f"--property=RuntimeMaxSec={LONGEST_S}", "--"]
    sys.stdout.flush()
    try:
        become([*command, sys.executable, *sys.orig_argv[1:]])
    except OSError as error:
        raise SdisupError(f"systemd-run cannot be run: {error.strerror}") from error


def set_up(systemd: Systemd) -> str:
    """Make the directories and the disk; returns what kind of disk it is. Raises SdisupError."""
    with open(f"{template_directory()}/{STAGE}.j2", encoding="utf-8") as file:
        template = jinja2.Template(file.read(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    text = template.render(
        header=DRILL_HEADER, scope=SCOPE, directory=DIRECTORY, unit_directory=UNIT_DIRECTORY, disk_bytes=DISK_BYTES
    )
    replace_file(f"{UNIT_DIRECTORY}/{STAGE}", text.encode())
    result = systemd.run_jobs("Start", [STAGE], 30.0)[STAGE]
    if result != DONE:
        raise SdisupError(f"the drill's directories and disk cannot be made ({result})", f"see: journalctl -u {STAGE}")
    return mounted_kind()


def mounted_kind() -> str:
    """The type of the filesystem that the drill records to: `ext4` on a loop device, or `tmpfs`."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        kinds = [line.partition(" - ")[2].split(" ")[0] for line in file if f" {RECORDINGS} " in line]
    if not kinds:
        raise SdisupError(f"nothing is mounted on {RECORDINGS}", f"see: journalctl -u {STAGE}")
    return kinds[-1]


def clear() -> None:
    """Remove the stage, and return when it is gone. The ports' processes may be frozen, so they are killed."""
    _systemctl("--no-block", "stop", STAGE)
    _systemctl("kill", "--signal=KILL", PORTS)
    _systemctl("stop", STAGE)


def _systemctl(*words: str) -> None:
    """Run systemctl; its exit code would only say that there was nothing to do."""
    says(["systemctl", *words])


def ports(ffmpeg: str) -> dict[int, Port]:
    """The drill's two ports: FFmpeg's test picture, and the same with an input that loses its signal.

    The second has the time limits of a `videomaster` port.
    """
    document = {
        "appliance": {"ports": 1, "recordings": RECORDINGS, "ffmpeg": ffmpeg},
        "port": {"0": {"name": "drill", "source": {"kind": Pattern.kind, "size": "640x360", "rate": RATE}}},
    }
    plain = parse_settings([("sdisup drill", document)]).ports[0].replaced(index=PLAIN_PORT)
    patient = plain.replaced(index=SIGNAL_PORT, **{key: getattr(Videomaster, key) for key in SOURCE_LIMITS})
    return {PLAIN_PORT: plain, SIGNAL_PORT: patient}


def write_ports(ffmpeg: str, capabilities: Capabilities, systemd_version: int, filesystem: str) -> None:
    """Write the units of ports and writer; systemd finds new units at their first start, without a daemon-reload."""
    for path, text in render_ports(ffmpeg, capabilities, systemd_version, filesystem).items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        replace_file(path, text.encode())


def render_ports(ffmpeg: str, capabilities: Capabilities, systemd_version: int, filesystem: str) -> Mapping[str, str]:
    """The units of the drill's ports and of its ledger's writer, by path."""
    drilled = ports(ffmpeg)
    settings = Settings("sdisup drill", len(drilled), RECORDINGS, _FFMPEG, drilled)
    files = render(settings, Machine(capabilities, systemd_version, {RECORDINGS: filesystem}), UNIT_DIRECTORY).files
    own = {
        f"{UNIT_DIRECTORY}/sdi-drill@.service": _as_own(files[f"{UNIT_DIRECTORY}/sdi-record@.service"]),
        f"{UNIT_DIRECTORY}/{WRITER}": _as_own(files[f"{UNIT_DIRECTORY}/sdi-ledger.service"]),
    }
    for index in drilled:
        path = drop_in_path(index, UNIT_DIRECTORY)
        own[path.replace("sdi-record@", "sdi-drill@")] = _with_places(_as_own(files[path]), index, ffmpeg)
    return own


def _with_places(text: str, index: int, ffmpeg: str) -> str:
    """A port's drop-in with the drill's directories, unit and FFmpeg in the runner's command line."""
    places = [f"--run-directory={RUN}", f"--unit={unit(index)}"]
    text = text.replace(f"{quote_all(RUNNER)} ", f"{quote_all([*RUNNER, *places])} ")
    program = [ffmpeg]
    if index == SIGNAL_PORT:
        program = [*RUNNER[:3], os.path.realpath(drill_signal.__file__), SIGNAL, ffmpeg]
        text = text.replace(f" --source={Pattern.kind} ", f" --source={Videomaster.kind} --without-signal=ends ")
    return text.replace(quote(_FFMPEG), quote_all(program))


# Words of a real unit, and the words of the drill's unit in their place; the last pair is for all other places.
_BOUND = f"BindsTo={STAGE}\nAfter={STAGE}\nCollectMode=inactive-or-failed\n"
_OWN = (
    ("PartOf=sdi-record.target\n", _BOUND),
    ("StartLimitIntervalSec=0\n", f"{_BOUND}StartLimitIntervalSec=0\n"),
    ("OnFailure=sdi-record-retry@%i.service\n", ""),
    ("RuntimeDirectory=sdisup/", f"RuntimeDirectory={os.path.basename(DIRECTORY)}/"),
    ("-/run/sdisup -/var/lib/sdisup/ledger", f"-{DIRECTORY}"),
    ("-/run/sdisup\n", f"-{DIRECTORY}\n"),
    (" sdi-ledger-flush.service\n", "\n"),
    ("Wants=sdi-ledger.service\n", f"Wants={WRITER}\n"),
    (f"ExecStart={quote_all(LEDGER_WRITER)}\n", f"ExecStart={quote_all([*LEDGER_WRITER, RUN, LEDGER])}\n"),
    ("\n[Install]\nWantedBy=sdi-record.target\n", ""),
    # The slice that systemd makes for a template would stay in its memory.
    ("SyslogIdentifier=sdi-record@%i\n", "SyslogIdentifier=sdi-drill@%i\nSlice=system.slice\n"),
    ("sdi-record", "sdi-drill"),
)
_REAL_PLACES = re.compile(r"sdi-record|sdi-ledger|/var/lib/sdisup|/run/sdisup(?!-drill)|=sdisup/")


def _as_own(text: str) -> str:
    """A real unit file as the drill's. Raises SdisupError if the text would still name a real port's places."""
    text = "\n".join([DRILL_HEADER, *(line for line in text.split("\n") if not line.startswith("#"))])
    for real, own in _OWN:
        text = text.replace(real, own)
    leak = _REAL_PLACES.search(text)
    if leak:
        raise SdisupError(f"the drill's unit would still say {leak[0]!r}", "nothing was started; this is a defect")
    return text


def ffmpeg_by_hand(command: list[str], file: int) -> Program:
    """The port's FFmpeg without systemd and runner, as the user sdisup; it dies with this process."""
    as_user = ["setpriv", "--reuid=sdisup", "--regid=sdisup", "--init-groups", "--pdeathsig=KILL", "--"]
    words = [GIVEN_NAME if word == "{output}" else word for word in command]
    try:
        return Program([*as_user, *words], given=file)
    except OSError as error:
        raise SdisupError(f"{as_user[0]} cannot be run: {error.strerror}") from error
