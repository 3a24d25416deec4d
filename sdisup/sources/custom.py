"""Any input that FFmpeg can open, by the arguments that the operator gives (arguments.py says which may be given)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdisup.sources.arguments import DEVICE_FORMATS, Input, parse_inputs
from sdisup.sources.base import SIGNAL_SCAN, Remark, Sandbox, Source
from sdisup.sources.values import AUTO_RATE, RATE, RATES, REQUIRED, Setting, Type, show


def _check_arguments(setting: Setting, value: object) -> tuple[Input, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) for word in value):
        raise ValueError(f'must be a list of strings, as in ["-re", "-i", "srt://…"], not {show(value)}')
    return parse_inputs(value)


def _check_audio(setting: Setting, value: object) -> bool | str:
    if isinstance(value, bool):
        return value
    if value == "optional":
        return "optional"
    raise ValueError(f"must be true, false or 'optional', not {show(value)}")


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
                "Whether the sound of the last input is recorded; an input without any then fails to start,"
                " unless it is optional."),
    )  # fmt: skip
    # A stream is late for reasons that heal by themselves: an HLS segment of up to 10 s comes at once and then
    # nothing, a lost packet costs the pictures until the next key frame, a sender is restarted. A new connection would
    # take as long.
    stall_timeout_s = 15

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
        return [word for entry in self.inputs for word in entry.arguments]

    def demuxers(self) -> list[str]:
        return [entry.format for entry in self.inputs if entry.format]

    def audio_channel_count(self) -> int:
        """What is in an input nobody knows before it runs: stereo is what nearly all of them carry."""
        return 2 if self.options["audio"] else 0

    def audio_map(self) -> str:
        """The sound of the last input: one that is apart from the picture is named after it."""
        return f"{len(self.inputs) - 1}:a:0" + ("?" if self.options["audio"] == "optional" else "")

    def sandbox(self) -> Sandbox:
        network = any(entry.needs_network for entry in self.inputs)
        if any(entry.needs_devices for entry in self.inputs):
            return Sandbox(network, None, ("video", "audio"), "the input arguments name one")
        return Sandbox(network)

    def files(self) -> list[Input]:
        return [entry for entry in self.inputs if entry.path]
