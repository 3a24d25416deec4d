"""What a program asks of a recording: RecorderConfig, and the FFmpeg command that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sdisup.config.settings import Port, Settings, override_port
from sdisup.encode.command import Capabilities, build_ffmpeg_arguments
from sdisup.encode.probe import probe_ffmpeg
from sdisup.errors import UnknownPortError, UsageError


class CodecType(StrEnum):
    """The codecs; each is a name of the configuration."""

    H264 = "h264"
    PRORES = "prores"


def codec_type(name: str) -> CodecType:
    """The codec of that name. Raises UsageError that names them all."""
    try:
        return CodecType(name)
    except ValueError as error:
        raise UsageError(f"unknown codec {name!r}", f"one of: {', '.join(CodecType)}") from error


@dataclass(frozen=True)
class RecorderConfig:
    """What one take is to be; None keeps what the port is configured to, also for `codec`, whose default is H264.

    `recording_path` is a directory at or below the port's recordings, made if it is missing; `container`
    one of the codec's (`mp4`, `mov`, `mkv`); `name` begins the file's name; `take` is the take's name,
    `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    """

    codec: CodecType | None = CodecType.H264
    recording_path: str | None = None
    container: str | None = None
    name: str | None = None
    take: str | None = None


class FFmpegCommandBuilder:
    """Makes the argument list of a port's FFmpeg. The installed FFmpeg is asked once what it can do."""

    def __init__(self, settings: Settings, capabilities: Capabilities | None = None) -> None:
        self._settings = settings
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """What the configured FFmpeg can do. Raises SdisupError when it does not answer (150 ms, once)."""
        if self._capabilities is None:
            self._capabilities = probe_ffmpeg(self._settings.ffmpeg)
        return self._capabilities

    def port_for(self, config: RecorderConfig, port_index: int | None = None) -> Port:
        """The port's values with what `config` asks for. Raises ConfigError, UnknownPortError."""
        ports = self._settings.ports
        index = next(iter(ports), 0) if port_index is None else port_index
        if index not in ports:
            raise UnknownPortError(f"port {index} is not configured", "sdisup apply makes it known to systemd")
        return override_port(ports[index], codec=config.codec and str(config.codec), container=config.container)

    def build_command(self, config: RecorderConfig, port_index: int | None = None) -> list[str]:
        """The argument list, from FFmpeg's path to the literal `{output}`, which the runner replaces.

        `port_index` says whose source; the first configured port's without one. Raises ConfigError for
        what cannot be recorded, UnknownPortError, SdisupError.
        """
        return build_ffmpeg_arguments(self.port_for(config, port_index), self._settings.ffmpeg, self.capabilities)
