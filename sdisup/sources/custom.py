"""Any input that FFmpeg can open, by the operator's own arguments (arguments.py checks them)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdisup.contract.options import OPTIONAL
from sdisup.sources.arguments import DEVICE_FORMATS, Input, parse_inputs
from sdisup.sources.base import CODED_FORMATS, SIGNAL_SCAN, Remark, Sandbox, Source
from sdisup.sources.values import AUTO_RATE, INTEGER, RATE, RATES, REQUIRED, Setting, Type, show


def _check_arguments(setting: Setting, value: object) -> tuple[Input, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) for word in value):
        raise ValueError(f'must be a list of strings, as in ["-re", "-i", "srt://…"], not {show(value)}')
    return parse_inputs(value)


def _check_audio(setting: Setting, value: object) -> bool | str:
    if isinstance(value, bool):
        return value
    if value == OPTIONAL:
        return OPTIONAL
    raise ValueError(f"must be true, false or 'optional', not {show(value)}")


ANALYSIS_US, OPTIONAL_ANALYSIS_US = "5000000", "2000000"
COPIED_ANALYSIS_US, COPIED_PROBE_BYTES = "12000000", "50000000"
"""What a decoder needs comes with a key frame, of which some streams have one in 10 s. FFmpeg ends its look as soon as
it knows all streams; by default after 5 MB."""
SOUND_TIMEOUT_US = "2000000"
TIMED_PROTOCOLS = ("http", "https", "rtmp", "rtmps", "tcp", "tls")

NOT_CHOSEN = -1


def _raw_reason(entry: Input, what: str) -> str:
    """Why an input has nothing to copy. What a camera delivers depends on the format that it is asked for."""
    values = dict(zip(entry.arguments, entry.arguments[1:], strict=False))
    is_raw = entry.format == "lavfi" or entry.format in DEVICE_FORMATS
    return f"{what} of {entry.format} is not" if is_raw and values.get("-input_format") not in CODED_FORMATS else ""


ARGUMENTS = Type("arguments", _check_arguments, "a list of strings")
AUDIO = Type("audio", _check_audio, 'true, false or "optional"')


class Custom(Source):
    kind = "custom"
    position = 40
    doc = "any FFmpeg input arguments: a stream, a file in real time, a FIFO"
    example = 'source = { kind = "custom", input = ["-i", "srt://192.0.2.7:9000?mode=caller"] }'
    settings = (
        Setting("input", ARGUMENTS, None,
                'FFmpeg\'s arguments for the input, such as ["-re", "-i", "/srv/media/loop.mkv"]. A file needs'
                " -re, which reads it in real time. What is in them can be read by every user of the machine,"
                " a password too.", default_doc=REQUIRED),
        Setting("rate", RATE, AUTO_RATE,
                "Frames a second of the recording; auto takes the stream's own, which should not be below 23.976:"
                " a crash may lose more of a slower one.", allowed=(AUTO_RATE, *RATES)),
        SIGNAL_SCAN,
        Setting("audio", AUDIO, True,
                "Whether the sound of the last input is recorded; an input without any then fails to start. Optional"
                " sound is left out until the next start where none comes for 2 s after FFmpeg opened its inputs, and"
                " where an input of its own does not open or stalls."),
        Setting("program", INTEGER, None,
                "The programme of an MPEG-TS, or the variant of an HLS stream, that is recorded, by its number; `sdisup"
                " check --probe` shows what there is.", default_doc="the one with the largest picture", maximum=65535),
        Setting("video_stream", INTEGER, 0,
                "Which picture is recorded, counted from 0: of the programme, or of all where none is named.",
                maximum=999),
        Setting("audio_stream", INTEGER, 0,
                "Which sound is recorded, counted from 0: of the picture's programme, or of the last input.",
                maximum=999),
    )  # fmt: skip
    node_hint = "ls -l /dev/dri /dev/video*"
    # A stream may pause and go on by itself: an HLS segment of up to 10 s comes at once and then nothing, a lost packet
    # costs the pictures until the next key frame, a sender restarts. A new connection would take as long.
    stall_timeout_s = 15
    knows_channels = False
    no_timecode = ""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What the arguments open."""
        inputs: tuple[Input, ...] = self.options["input"]
        return inputs

    def __str__(self) -> str:
        return str(self.inputs[0])

    def devices(self) -> dict[str, tuple[str, ...]]:
        return {entry.url: ("source.input",) for entry in self.inputs if entry.format in DEVICE_FORMATS}

    def doubts(self, limits_s: Mapping[str, float]) -> Iterator[Remark]:
        for path in [entry.path for entry in self.inputs if entry.path.startswith(("/tmp/", "/var/tmp/"))][:1]:
            text = f"{path} is not seen by the recorder, whose unit has a /tmp of its own; put it elsewhere"
            yield ("source.input",), text

    def arguments(self) -> list[str]:
        """The operator's arguments, with time limits where the operator gave none.

        FFmpeg waits 90 s for sound that an FLV announces, 7 s for that of an MPEG-TS, and 5 s elsewhere
        (libavformat/demux.c, avformat_find_stream_info). While an input of the sound alone is silent, FFmpeg does not
        read the picture. A time-out, where the protocol has one, ends that input alone.
        """
        return self._arguments(OPTIONAL_ANALYSIS_US if self.sound() == OPTIONAL else ANALYSIS_US)

    def copied_arguments(self) -> list[str]:
        # Sound that is optional and never comes ends the first FFmpeg, which then has recorded nothing.
        return self._arguments(ANALYSIS_US if self.sound() == OPTIONAL else COPIED_ANALYSIS_US, COPIED_PROBE_BYTES)

    def _arguments(self, analysis_us: str, probe_bytes: str = "") -> list[str]:
        words: list[str] = []
        for number, entry in enumerate(self.inputs):
            is_analysed = entry.format not in DEVICE_FORMATS | {"lavfi"}
            if is_analysed and "analyzeduration" not in entry.options:
                words += ["-analyzeduration", analysis_us]
            if is_analysed and probe_bytes and "probesize" not in entry.options:
                words += ["-probesize", probe_bytes]
            is_apart = number > 0 and self.sound() == OPTIONAL
            if is_apart and entry.url.partition(":")[0] in TIMED_PROTOCOLS and "rw_timeout" not in entry.options:
                words += ["-rw_timeout", SOUND_TIMEOUT_US]
            words += entry.arguments
        return words

    @classmethod
    def defaults(cls, index: int) -> dict[str, object]:
        return {"program": NOT_CHOSEN}

    def demuxers(self) -> list[str]:
        return [entry.format for entry in self.inputs if entry.format]

    def audio_channel_count(self) -> int:
        """Stereo: nobody knows an input's channels before FFmpeg opens it, and nearly all inputs have two."""
        return 2 if self.options["audio"] else 0

    def sound(self) -> str:
        return OPTIONAL if self.options["audio"] == OPTIONAL else super().sound()

    def audio_map(self) -> str:
        """The sound of the last input: an operator names an input of the sound alone after that of the picture."""
        own_input = len(self.inputs) - 1
        place = f"{own_input}:a:" if own_input else f"{self._place}:a:"
        return f"{place}{self.options['audio_stream']}" + ("?" if self.sound() == OPTIONAL else "")

    @property
    def _place(self) -> str:
        """Where the picture is, for -map."""
        program = self.options["program"]
        return "0" if program == NOT_CHOSEN else f"0:p:{program}"

    def raw_reason(self) -> str:
        return _raw_reason(self.inputs[0], "the picture")

    def raw_sound_reason(self) -> str:
        return _raw_reason(self.inputs[-1], "the sound")

    def video_map(self) -> str:
        return f"{self._place}:v:{self.options['video_stream']}"

    def sandbox(self) -> Sandbox:
        network = any(entry.needs_network for entry in self.inputs)
        if any(entry.needs_devices for entry in self.inputs):
            return Sandbox(network, None, ("video", "audio"), "the input arguments name one")
        return Sandbox(network)

    def nodes(self) -> list[str]:
        return [node for entry in self.inputs for node in entry.nodes]

    def files(self) -> list[Input]:
        return [entry for entry in self.inputs if entry.path]
