"""What other programs call: RecorderManager, RecorderConfig, and the FFmpeg command that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sdisup.config.settings import Port, Settings, override_port
from sdisup.contract.applied import AppliedPort, load_applied
from sdisup.contract.status import PortStatus
from sdisup.control.observe import statuses
from sdisup.control.ports import RECORDS, START_LIMIT_S, WAITS, start_ports, stop_ports
from sdisup.control.takes import make_request
from sdisup.encode.command import Capabilities, build_ffmpeg_arguments
from sdisup.encode.probe import probe_ffmpeg
from sdisup.errors import SdisupError, UnknownPortError, UsageError


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

    `recording_path` is a directory at or below the port's recordings, made if it is missing, or a file there: its
    stem names the files, as `name` does, and its ending is the container. `container` is one of the codec's (`mp4`,
    `mov`, `mkv`); `name` begins the file's name; `take` is the take's name,
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


class RecorderManager:
    """Drives the recordings of one configuration. Synchronous, and callable from any thread.

    It holds no connection between calls, and of what it has learnt only what FFmpeg can do: D-Bus and systemd may
    go away and come back.
    `sdisup.aio` has the same for asyncio. All methods raise SystemdError when systemd cannot be asked.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._builder: FFmpegCommandBuilder | None = None

    def initialize(self) -> None:
        """Check that systemd answers and that the configuration was applied. Raises SdisupError."""
        from sdisup.control.systemd import Systemd

        applied = load_applied()
        missing = [port.label for index, port in self._settings.ports.items() if index not in applied.ports]
        if missing:
            raise SdisupError(f"{', '.join(missing)}: not applied yet", "run it as root: sudo sdisup apply")
        with Systemd() as systemd:
            systemd.version()
        try:
            _ = self._command_builder().capabilities
        except SdisupError:
            # Only a take with a codec of its own needs it, and says so then.
            return

    def start_recording(self, port_index: int, config: RecorderConfig | None = None) -> PortStatus:
        """Start the port and return when systemd says that it has started; its status then.

        Started means: the first frame is on disk, or there is no signal, or it is taking longer than 5 s;
        the status says which. Raises ValueError for an index outside the range, RecordingError (a
        RuntimeError) for a port that records already, is just started by somebody else, or cannot record,
        and ConfigError for a `config` that is not possible.
        """
        port = self._applied(port_index)
        outcome = start_ports(
            [port],
            0.0,
            request=lambda port: make_request(port, config, self._command_builder),
            job_limit_s=START_LIMIT_S,
        )[0]
        if outcome.kind not in (RECORDS, WAITS) or outcome.status is None:
            raise outcome.as_error()
        return outcome.status

    def stop_recording(self, port_index: int) -> None:
        """Stop the port and return when its file is closed. A stopped port is no error. Raises SdisupError."""
        outcome = stop_ports([self._applied(port_index)])[0]
        if not outcome.ok:
            raise outcome.as_error()

    def get_status(self, port_index: int) -> PortStatus:
        """The port's status. Raises ValueError for an index outside the range."""
        return statuses([self._applied(port_index)])[0]

    def get_all_status(self) -> list[PortStatus]:
        """The status of every configured port, by index."""
        applied = load_applied()
        return statuses([port for index, port in applied.ports.items() if index in self._settings.ports])

    def _applied(self, port_index: int) -> AppliedPort:
        """The port as it was applied. Raises ValueError in the words of the promise."""
        check_port_index(port_index, self._settings)
        port = load_applied().ports.get(port_index)
        if port is None:
            hint = "it is not enabled, or not applied: sudo sdisup apply"
            raise UnknownPortError(f"port {port_index} is not known to systemd", hint)
        return port

    def _command_builder(self) -> FFmpegCommandBuilder:
        if self._builder is None:
            self._builder = FFmpegCommandBuilder(self._settings)
        return self._builder


class PortRecorder:
    """One port of a configuration, as the recorder object that a program keeps for it. It holds nothing between calls.

    The methods raise what those of RecorderManager raise; a port outside the range is a ValueError at once.
    """

    def __init__(self, port_index: int, settings: Settings) -> None:
        check_port_index(port_index, settings)
        self.port_index = port_index
        self._manager = RecorderManager(settings)

    def start(self, config: RecorderConfig | None = None) -> PortStatus:
        """Start the port, as RecorderManager.start_recording does."""
        return self._manager.start_recording(self.port_index, config)

    def stop(self) -> None:
        """Stop the port and return when its file is closed. A stopped port is no error."""
        self._manager.stop_recording(self.port_index)

    def get_status(self) -> PortStatus:
        """The port's status."""
        return self._manager.get_status(self.port_index)


def check_port_index(port_index: int, settings: Settings) -> None:
    """Raises ValueError, in the words of the promise, for an index outside the range."""
    last = settings.port_count - 1
    is_index = isinstance(port_index, int) and not isinstance(port_index, bool)
    if not is_index or not 0 <= port_index <= last:
        raise ValueError(f"Invalid port index {port_index}. Valid range: 0-{last}")
