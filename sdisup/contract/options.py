"""The runner's own command line: `--port=3 --name=CAM3 … -- /usr/bin/ffmpeg … {output}`.

Written by `sdisup apply` into the unit and read by the runner; both know it from here.
"""

from __future__ import annotations

from sdisup.contract.names import problem_of
from sdisup.contract.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

ENDS, SEARCHES = "ends", "searches"
"""What FFmpeg does when its source has no signal: it ends at once, or it looks for one for some seconds and ends."""


REQUIRED, OPTIONAL = "required", "optional"
"""Whether a port that is to record sound records without it where none comes."""
SOUND_MARK = "1397708110"
"""The number, `SOUN` in ASCII, that FFmpeg logs for each second of sound (ffmpeg-utils(1), `print`)."""


class OptionError(ValueError):
    """A command line that no `sdisup apply` wrote."""


class Options(Record):
    """One port as its runner sees it.

    `filesystem` is what apply found the recordings on (contract/filesystem.py), empty if it could not; `rate` the
    source's frames per second, 0 if unknown. `source` is the source's kind and `input` its place in the
    operator's words (`board 0 channel 3`).
    `without_signal` is ENDS or SEARCHES where FFmpeg ends without a signal, which is no failure; empty where a
    missing signal is nothing that FFmpeg tells. `audio_options` are the input's options, separated by commas, that
    ask for the sound in the signal, which a signal may lack (`-nb_channels,-sample_rate`). `sound` is REQUIRED or
    OPTIONAL, empty where none is recorded. `file_name` is the template of its files' names (contract/names.py), empty
    for the default one. `timecode` is that of the first frame, or whose it is (contract/timecode.py), empty
    for none. With less than `min_free_bytes` free, retention is to delete what it may.
    Times are in seconds: `stall_timeout_s` without a new frame is a stall; `start_timeout_s` until the
    first; `stop_quit_s` and `stop_term_s` are the patience after `q` and after SIGTERM, and
    `stop_start_quit_s` that after `q` while no frame has come yet. `run_directory` and
    `unit` are empty for a real port: only a drill's has places and a name of its own.
    What is empty in _OPTIONAL is not written, and units of an older apply lack it.
    """

    command: list[str]
    port: int
    name: str
    codec: str
    container: str
    source: str
    input: str
    without_signal: str
    audio_options: str
    recordings: str
    revision: str
    filesystem: str
    rate: float
    stall_timeout_s: float
    start_timeout_s: float
    sync_interval_s: float
    stop_quit_s: float
    stop_start_quit_s: float
    stop_term_s: float
    run_directory: str = ""
    unit: str = ""
    sound: str = ""
    file_name: str = ""
    timecode: str = ""
    min_free_bytes: int = 0


_NAMES = {name: kind for name, kind in Options.__annotations__.items() if name != "command"}
_OPTIONAL = {
    "without_signal": "",
    "audio_options": "",
    "run_directory": "",
    "unit": "",
    "sound": "",
    "file_name": "",
    "timecode": "",
    "min_free_bytes": 0,
}
_READ = {"int": int, "float": float, "str": str}


def unit_of(options: Options) -> str:
    """The unit that a runner of these options is the process of."""
    return options.unit or f"sdi-record@{options.port}.service"


def format_options(options: Options) -> list[str]:
    """The arguments that parse_options reads back."""
    names = [name for name in _NAMES if name not in _OPTIONAL or getattr(options, name)]
    words = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    return [*words, "--", *options.command]


def parse_options(arguments: Sequence[str], warn: Callable[[str], None] = lambda _: None) -> Options:
    """Read the arguments after `run`. Raises OptionError where it is not said what to record, and for which port.

    An option more or less is no reason not to record: a unit may be older than this runner, or newer, or written by
    hand (`systemctl edit`). `warn` gets what is passed over, or taken to be as it mostly is.
    """
    words = list(arguments)
    if "--" not in words:
        raise OptionError("no FFmpeg command after --")
    split = words.index("--")
    command = words[split + 1 :]
    if not command or "{output}" not in command:
        raise OptionError("FFmpeg's command has no {output}")
    values: dict[str, Any] = {}
    for word in words[:split]:
        name, separator, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if name not in _NAMES or not separator or not word.startswith("--"):
            warn(f"unknown option {word[:80]!r}; going on without it")
            continue
        problem = _wrong(name, value)
        if problem and name == "port":
            raise OptionError(f"{word[:80]!r} {problem}")
        if problem:
            warn(f"{word[:80]!r} {problem}; going on without it")
        else:
            values[name] = _READ[_NAMES[name]](value)
    if "port" not in values:
        raise OptionError("option --port is missing")
    known = {**_OPTIONAL, **_unsaid(command, str(values.get("source", ""))), **values}
    usual = _usual(command, known)
    for name in [name for name in _NAMES if name not in known]:
        warn(f"option --{name.replace('_', '-')} is missing; going on with {usual[name]!r}")
    return Options(command, **{**usual, **known})


def _wrong(name: str, value: str) -> str:
    """Why a value is none; "" if it is one."""
    try:
        read = _READ[_NAMES[name]](value)
    except ValueError:
        return "is no number"
    if name == "file_name":
        return problem_of(value)
    # Also not NaN: a time-out that no clock passes is a watch that is switched off.
    is_meant = not isinstance(read, int | float) or 0 <= read < 1e9
    return "" if is_meant else "is no number that can be meant"


def _usual(command: Sequence[str], known: dict[str, Any]) -> dict[str, Any]:
    """What an option that is missing is taken to be. A card that blocks FFmpeg is left its time (VIDEOMASTER.md 8)."""
    muxers = [command[index + 1] for index, word in enumerate(command[:-1]) if word == "-f"]
    # The muxer of several files has that of each as an option.
    muxers += [command[index + 1] for index, word in enumerate(command[:-1]) if word == "-segment_format"]
    container = "mkv" if muxers[-1:] in ([], ["matroska"]) else muxers[-1]
    quit_s, start_quit_s = (12.0, 22.0) if known["without_signal"] == ENDS else (3.0, 3.0)
    return {
        "name": f"port{known['port']}", "codec": "", "container": container, "source": "", "input": "its source",
        "recordings": "/srv/recordings", "revision": "", "filesystem": "", "rate": 0.0, "stall_timeout_s": 15.0,
        "start_timeout_s": 30.0, "sync_interval_s": 1.0, "stop_quit_s": quit_s, "stop_start_quit_s": start_quit_s,
        "stop_term_s": 2.0,
    }  # fmt: skip


def _unsaid(command: Sequence[str], source: str) -> dict[str, str]:
    """What the first units left to the runner to know, by FFmpeg's arguments that no other source has.

    Such a unit is in use from an upgrade until the next `sdisup apply`, which writes it anew. Without this, its port
    would back off where a signal is missing, and would not record a signal that carries no sound.
    """
    if "-abort_on" in command:
        audio_options = [word for word in command if word in ("-nb_channels", "-sample_rate", "-sample_size")]
        return {"without_signal": ENDS, "audio_options": ",".join(audio_options)}
    return {"without_signal": SEARCHES} if "-draw_bars" in command and source in command else {}
