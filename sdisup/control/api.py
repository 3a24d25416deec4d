"""What other programs call: RecorderManager, PortRecorder, RecorderConfig, FFmpegCommandBuilder."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from sdisup.config.settings import Port, Settings, override_port
from sdisup.contract.applied import AppliedPort, load_applied
from sdisup.contract.files import utc_text
from sdisup.contract.protections import Protection
from sdisup.contract.records import Record
from sdisup.contract.status import PortStatus
from sdisup.control.observe import full_statuses
from sdisup.control.orders import Asked, start_at_times
from sdisup.control.ports import (
    NO_SIGNAL,
    ORDERED_START,
    RECORDS,
    START_LIMIT_S,
    WAITS,
    cut_ports,
    start_ports,
    stop_ports,
)
from sdisup.control.takes import make_request
from sdisup.encode.command import Capabilities, build_ffmpeg_arguments
from sdisup.encode.probe import probe_ffmpeg
from sdisup.errors import RecordingError, SdisupError, UnknownPortError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sdisup.contract.requests import Request
    from sdisup.control.export import Exported


GANG_WAIT_S = 10.0


class CodecType(StrEnum):
    """The codecs, by their names in the configuration."""

    H264 = "h264"
    HEVC = "hevc"
    PRORES = "prores"
    DNXHR = "dnxhr"
    DNXHD = "dnxhd"
    FFV1 = "ffv1"
    V210 = "v210"
    XDCAM = "xdcam"


def codec_type(name: str) -> CodecType:
    """The codec of that name. Raises UsageError that lists all names."""
    try:
        return CodecType(name)
    except ValueError as error:
        raise UsageError(f"unknown codec {name!r}", f"one of: {', '.join(CodecType)}") from error


class RecorderConfig(Record):
    """How one take is recorded. None means the port's own value, also for `codec`, whose default is H264.

    `recording_path` is a directory at or below the port's recordings, which is made if it is missing, or a file there:
    the file's stem stands for `name` and its ending for `container`. A relative path begins at the port's recordings.
    `container` is one of the codec's (`mp4`, `mov`, `mkv`, `mxf`); `name` begins the files' names; `take` is the take's
    name, `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    """

    codec: CodecType | None = CodecType.H264
    recording_path: str | None = None
    container: str | None = None
    name: str | None = None
    take: str | None = None


class FFmpegCommandBuilder:
    """Makes the argument list of a port's FFmpeg. It asks the installed FFmpeg once what it can do."""

    def __init__(self, settings: Settings, capabilities: Capabilities | None = None) -> None:
        self._settings = settings
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """What the configured FFmpeg can do; asked once, in 150 ms. Raises SdisupError when FFmpeg does not answer."""
        if self._capabilities is None:
            self._capabilities = probe_ffmpeg(self._settings.ffmpeg)
        return self._capabilities

    def port_for(self, config: RecorderConfig, port_index: int | None = None) -> Port:
        """The port with the codec and the container of `config`. Raises ConfigError, UnknownPortError."""
        ports = self._settings.ports
        index = next(iter(ports), 0) if port_index is None else port_index
        if index not in ports:
            raise UnknownPortError(f"port {index} is not configured", "sdisup apply makes it known to systemd")
        return override_port(ports[index], codec=config.codec and str(config.codec), container=config.container)

    def build_command(self, config: RecorderConfig, port_index: int | None = None) -> list[str]:
        """The argument list, from FFmpeg's path to the literal `{output}`, which the runner replaces.

        Without `port_index` the first configured port's source is recorded. Raises ConfigError for a combination that
        cannot be recorded, UnknownPortError for a port that is not configured, and SdisupError.
        """
        return build_ffmpeg_arguments(self.port_for(config, port_index), self._settings.ffmpeg, self.capabilities)


class RecorderManager:
    """Drives the recordings of one configuration. Synchronous, and callable from any thread.

    Between calls it keeps no connection, so that D-Bus and systemd may restart; it remembers only what FFmpeg can do.
    `sdisup.aio` has the same for asyncio. All methods raise SystemdError when systemd does not answer.
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
            # Only a take with a codec of its own needs FFmpeg here; its start raises the error then.
            return

    def start_recording(
        self,
        port_index: int,
        config: RecorderConfig | None = None,
        *,
        at: datetime | None = None,
        until: datetime | None = None,
        for_s: float | None = None,
    ) -> PortStatus:
        """Start the port, wait until systemd reports the unit as started, and return the port's status.

        With `until` or `for_s` it is stopped then; `at` starts it at that time and returns at once. Times without a
        time zone are local.

        The runner tells systemd so when the first frame is on disk, when there is no signal, or after 5 s; the status
        says which. Raises ValueError for an index outside the range; RecordingError (a RuntimeError) for a port that
        is started already, is started by another program at the same moment, or cannot record; and ConfigError for a
        `config` that is not possible.
        """
        port = self._applied(port_index)

        def request(port: AppliedPort) -> Request:
            return make_request(port, config, self._command_builder)

        asked = Asked(at.timestamp() if at else None, until.timestamp() if until else None, for_s)
        if asked.is_plain:
            outcome = start_ports([port], 0.0, request=request, job_limit_s=START_LIMIT_S)[0]
        else:
            outcome = start_at_times([port], 0.0, asked, request, START_LIMIT_S)[0]
        if outcome.kind == ORDERED_START:
            return self.get_status(port_index)
        if outcome.kind not in (RECORDS, NO_SIGNAL, WAITS) or outcome.status is None:
            raise outcome.as_error()
        return outcome.status

    def start_recordings(
        self,
        port_indexes: Sequence[int],
        config: RecorderConfig | None = None,
        *,
        all_or_none: bool = False,
        wait_s: float = GANG_WAIT_S,
    ) -> list[PortStatus]:
        """Start several ports at once, wait up to `wait_s` seconds for each one's first frame on disk, and return their
        statuses in the same order.

        Where a port does not record by then, this raises RecordingError, which names all that do not. The others go
        on; with `all_or_none` none is left recording, and what they recorded is kept. Raises what start_recording does.
        """
        ports = [self._applied(index) for index in port_indexes]

        def request(port: AppliedPort) -> Request:
            return make_request(port, config, self._command_builder)

        if all_or_none:
            from sdisup.control.gang import start_all_or_none

            outcomes = start_all_or_none(ports, wait_s, request)
        else:
            outcomes = start_ports(ports, wait_s, request=request)
        bad = [outcome for outcome in outcomes if not outcome.ok]
        if len(bad) == 1:
            raise bad[0].as_error()
        if bad:
            raise RecordingError("; ".join(outcome.text for outcome in bad))
        return [outcome.status for outcome in outcomes if outcome.status is not None]

    def stop_recording(self, port_index: int, *, unlock: bool = False) -> None:
        """Stop the port and return when its file is closed. A stopped port is no error.

        Raises LockedError for a locked port without `unlock`, RootError with it for anybody but root, and SdisupError.
        """
        outcome = stop_ports([self._applied(port_index)], unlock=unlock)[0]
        if not outcome.ok:
            raise outcome.as_error()

    def cut_recording(self, port_index: int, take: str | None = None) -> PortStatus:
        """Let the next take begin now, without a lost frame, and return the port's status: `take_first_file` and
        `take_first_frame` say where. Its files follow from the next one on; without a name they have that of the take
        before. Raises ValueError for an index outside the range, and RecordingError for a port that does not run.
        """
        outcome = cut_ports([self._applied(port_index)], take)[0]
        if not outcome.ok or outcome.status is None:
            raise outcome.as_error()
        return outcome.status

    def get_status(self, port_index: int) -> PortStatus:
        """The port's status. Raises ValueError for an index outside the range."""
        return full_statuses([self._applied(port_index)])[0]

    def get_all_status(self) -> list[PortStatus]:
        """The status of every configured port, by index."""
        applied = load_applied()
        return full_statuses([port for index, port in applied.ports.items() if index in self._settings.ports])

    def export(self, port_index: int, take: str, directory: str, *, partial: bool = False) -> list[Exported]:
        """Make the files of a port's take one file in `directory`, by copying; several where they do not fit together.

        `partial` leaves out files that are missing or being recorded; else they are an error. Nothing is overwritten.
        Raises ValueError for an index outside the range, and SdisupError, also where there is nothing of the take.
        """
        from sdisup.control.export import export_take
        from sdisup.ledger.accounts import Window
        from sdisup.ledger.present import with_ledgers

        check_port_index(port_index, self._settings)
        port = with_ledgers(load_applied()).ports.get(port_index)
        window = Window(take=take)
        made = list(export_take(port, window, directory, self._settings.ffmpeg, partial=partial)) if port else []
        if not made:
            raise SdisupError(f"port {port_index} has no recording of a take {take!r}")
        return made

    def protect(
        self,
        path: str | None = None,
        *,
        take: str | None = None,
        port_index: int | None = None,
        since: float | None = None,
        until: float | None = None,
        reason: str = "",
    ) -> str:
        """Keep recordings from being deleted by rules, as `sdisup protect` does: a file, or what of a take, of a port,
        or of both is within a time (Unix time); returns the id. Raises ValueError for nothing, or for what does not go
        together, and SdisupError.
        """
        from sdisup.control import protect as protecting

        if path is not None and (take, port_index, since, until) != (None,) * 4:
            raise ValueError("a path and a choice of files together")
        if path is None and take is None and (port_index is None or (since, until) == (None, None)):
            raise ValueError("what is to be protected: a path, a take, or a port and a time")
        if path is not None:
            asked = protecting.of_files([path])
        else:
            first, last = ("" if at is None else utc_text(at) for at in (since, until))
            asked = [Protection("", take or "", port_index, first, last)]
        return protecting.protect(asked, reason)[0].name

    def unprotect(self, protection_id: str) -> None:
        """Take a protection away, by the id that `protect` returned. Raises SdisupError where there is none."""
        from sdisup.control import protect as protecting

        protecting.unprotect([Protection(name=protection_id)])

    def protections(self) -> list[Protection]:
        """All protections, in the order in which they were made; `name` is the id. Raises SdisupError."""
        from sdisup.control import protect as protecting

        return protecting.known_protections()

    def _applied(self, port_index: int) -> AppliedPort:
        """The port as `apply` left it. Raises ValueError with the text that the Python interface promised."""
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
    """The recorder of one port. It keeps no connection between calls.

    The methods raise what those of RecorderManager raise; for a port outside the range the constructor raises
    ValueError.
    """

    def __init__(self, port_index: int, settings: Settings) -> None:
        check_port_index(port_index, settings)
        self.port_index = port_index
        self._manager = RecorderManager(settings)

    def start(
        self,
        config: RecorderConfig | None = None,
        *,
        at: datetime | None = None,
        until: datetime | None = None,
        for_s: float | None = None,
    ) -> PortStatus:
        """Start the port, as RecorderManager.start_recording does."""
        return self._manager.start_recording(self.port_index, config, at=at, until=until, for_s=for_s)

    def stop(self, *, unlock: bool = False) -> None:
        """Stop the port, as RecorderManager.stop_recording does."""
        self._manager.stop_recording(self.port_index, unlock=unlock)

    def cut(self, take: str | None = None) -> PortStatus:
        """Let the next take begin, as RecorderManager.cut_recording does."""
        return self._manager.cut_recording(self.port_index, take)

    def get_status(self) -> PortStatus:
        """The port's status."""
        return self._manager.get_status(self.port_index)


def check_port_index(port_index: int, settings: Settings) -> None:
    """Raises ValueError, with the text that the Python interface promised, for an index outside the range."""
    last = settings.port_count - 1
    is_index = isinstance(port_index, int) and not isinstance(port_index, bool)
    if not is_index or not 0 <= port_index <= last:
        raise ValueError(f"Invalid port index {port_index}. Valid range: 0-{last}")
