"""FFmpeg's command line for an attempt: the configured one, changed for what was found of the input."""

from __future__ import annotations

from sdisup.contract.media import COPY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdisup.contract.options import Options
    from sdisup.runner.memory import Memory

OUTPUT, MUXERS = "{output}", {"mkv": "matroska"}
"""The place for the file in a command line, and FFmpeg's names of the muxers that are not called as their files end."""


SEGMENTS = "segment"
"""FFmpeg's muxer of several files."""


def next_options(options: Options, memory: Memory) -> Options:
    """The options with the command of the next attempt, after what was found of the input."""
    command = options.command
    if memory.without_audio:
        command = without_audio(command, options.audio_options)
    if memory.programme:
        command = with_programme(command, memory.programme)
    if memory.channels:
        command = in_pairs(command, memory.channels)
    if memory.from_zero:
        command = from_zero(command)
    if memory.size:
        command = with_size(command, memory.size)
    if memory.from_zero or memory.size:
        # For this attempt: at the next start the source may be well again. And a server that begins each connection
        # with a slate of another size would make a new file of each.
        memory.from_zero, memory.size = False, ""
        memory.save()
    return options if command is options.command else options.replaced(command=command)


def is_segmented(command: Sequence[str]) -> bool:
    """Whether a command records into several files."""
    return any(word == "-f" and command[index + 1] == SEGMENTS for index, word in enumerate(command[:-1]))


def with_output(command: Sequence[str], container: str, name: str) -> list[str]:
    """The command that records to `name`, by which FFmpeg cannot tell the muxer: a unit written by hand may lack it."""
    at = command.index(OUTPUT)
    last_input = max((index for index in range(at) if command[index] == "-i"), default=0)
    muxer = [] if "-f" in command[last_input:at] else ["-f", MUXERS.get(container, container)]
    return [*command[:at], *muxer, *(name if word == OUTPUT else word for word in command[at:])]


def with_size(command: Sequence[str], size: str) -> list[str]:
    """The same command for a file of that size, `640x360`, whatever the first pictures are. FFmpeg's scaling would mix
    the fields of interlaced pictures."""
    if is_copied(command) or any("setfield=" in word for word in command):
        return [*command]
    width, height = (int(number) // 2 * 2 for number in size.split("x"))
    return [*command[:-1], "-s", f"{width}x{height}", command[-1]]


def is_copied(command: Sequence[str], codec: str = "-c:v") -> bool:
    """Whether the pictures, or by -c:a the sound, are recorded as they come; FFmpeg refuses filters for those."""
    return any(word == codec and command[index + 1] == COPY for index, word in enumerate(command[:-1]))


FROM_ZERO = "setpts=PTS-STARTPTS"


def from_zero(command: Sequence[str]) -> list[str]:
    """The same command with picture and sound beginning at zero each, wherever their timestamps begin."""
    if is_copied(command):
        return [*command]
    made = [*command] if "-vf" in command else [*command[:-1], "-vf", "null", command[-1]]
    for index, option in enumerate(made):
        if option == "-vf":
            made[index + 1] = f"{FROM_ZERO},{made[index + 1]}"
        elif option == "-af" or option.startswith("-filter:a"):
            made[index + 1] = f"asetpts=PTS-STARTPTS,{made[index + 1]}"
    return made


def is_from_zero(command: Sequence[str]) -> bool:
    """Whether it is a command of from_zero."""
    return any(word.startswith(FROM_ZERO) for word in command)


_SOUND_OPTIONS = ("-af", "-c:a", "-b:a")


def sound_input(command: Sequence[str]) -> int:
    """The number of the input that the sound has for itself; 0 if it comes with the picture, or there is none."""
    for index, word in enumerate(command[:-1]):
        if word == "-map" and ":a:" in command[index + 1]:
            return int(command[index + 1].partition(":")[0])
    return 0


def without_audio(command: Sequence[str], audio_options: str) -> list[str]:
    """The same command without a track for the sound, an input for it alone, and the input's audio options."""
    unwanted = {*_SOUND_OPTIONS, *audio_options.split(",")}
    kept: list[str] = []
    index = 0
    if sound_input(command):
        end_of_picture = command.index("-i") + 2
        command = [*command[:end_of_picture], *command[command.index("-map") :]]
    while index < len(command):
        is_audio_map = command[index] == "-map" and ":a:" in "".join(command[index + 1 : index + 2])
        if command[index] in unwanted or command[index].startswith("-filter:a:") or is_audio_map:
            index += 2
        else:
            kept.append(command[index])
            index += 1
    return kept


IN_STEP = "aresample="
"""The last filter of the sound (encode/sound.py)."""


def is_whole_aac(command: Sequence[str]) -> bool:
    """Whether the sound is encoded in one track of AAC as it comes, however many channels it has."""
    values = {word: command[at + 1] for at, word in enumerate(command[:-1])}
    graph = values.get("-af", "pan=")
    return values.get("-c:a") == "aac" and IN_STEP in graph and "pan=" not in graph and "channelmap=" not in graph


def in_pairs(command: Sequence[str], channels: int) -> list[str]:
    """The same command with a track for each two channels of the sound."""
    if not is_whole_aac(command):
        return [*command]
    graph_at = command.index("-af")
    map_at = next(at for at, word in enumerate(command) if word == "-map" and ":a:" in command[at + 1])
    watch, _, in_step = command[graph_at + 1].partition(IN_STEP)
    words: list[str] = []
    for track, first in enumerate(range(0, channels, 2)):
        pan = f"pan=stereo|c0=c{first}|c1=c{first + 1}," if first + 1 < channels else f"pan=mono|c0=c{first},"
        words += [f"-filter:a:{track}", f"{'' if track else watch}{pan}{IN_STEP}{in_step}"]
    maps = [*command[map_at : map_at + 2]] * ((channels + 1) // 2)
    return [*command[:map_at], *maps, *command[map_at + 2 : graph_at], *words, *command[graph_at + 2 :]]


def with_programme(command: Sequence[str], number: str) -> list[str]:
    """`command` with -map for the picture and the sound of that programme of the first input."""
    kept = list(command)
    for index, word in enumerate(command[:-1]):
        value = command[index + 1]
        if word == "-map" and value.startswith(("0:v:", "0:a:")):
            kept[index + 1] = f"0:p:{number}{value.removeprefix('0')}"
    return kept
