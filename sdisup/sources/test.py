"""FFmpeg's own test picture and tone."""

from __future__ import annotations

from sdisup.sources.base import Source
from sdisup.sources.values import BOOLEAN, LOW_RATES, RATE, RATES, SIZE, Setting


class Pattern(Source):
    kind = "test"
    position = 50
    doc = "FFmpeg's test picture and tone, in real time"
    example = 'source = { kind = "test", size = "640x360", rate = 25 }'
    settings = (
        Setting("size", SIZE, "1280x720", "Width and height of the picture, in even pixels."),
        Setting("rate", RATE, "25", "Frames a second.", allowed=(*LOW_RATES, *RATES)),
        Setting("tone", BOOLEAN, True, "Whether there is a 1 kHz tone."),
    )
    demuxer = "lavfi"
    remedy = "install an FFmpeg with libavfilter's input device"

    def arguments(self) -> list[str]:
        """FFmpeg's arguments. The filter `realtime` paces the picture, not `-re`.

        From FFmpeg 6.1 on, `-re` delivers the first half second at once, so that the count of frames would be half a
        second ahead of the clock from the start.
        """
        graph = f"testsrc2=size={self.options['size']}:rate={self.options['rate']},realtime[out0]"
        if self.options["tone"]:
            graph += ";sine=frequency=1000:sample_rate=48000[out1]"
        return ["-f", "lavfi", "-i", graph]

    def audio_channel_count(self) -> int:
        return 1 if self.options["tone"] else 0
