"""`sdisup drill`: plays faults on a port of its own, and compares what each fault costs with what is promised.

The drill is the owner's acceptance test, on the owner's machine, beside real ports that record. It measures from
outside the port: by the port's files, processes and status, and by what ffprobe reads of the files. With that it
compares the ledger.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress

from sdisup.config.settings import Port, Settings
from sdisup.contract.files import monotonic
from sdisup.contract.filesystem import filesystem_identity
from sdisup.contract.programs import ffprobe_beside, says
from sdisup.contract.status import PortStatus
from sdisup.control.systemd import DONE, Systemd
from sdisup.drill import stage as drill_stage
from sdisup.drill.faults import Fault, give_signal, known_faults
from sdisup.drill.report import ROOM_S, Result, exceeded, report_json, report_table, typical
from sdisup.drill.stage import LEDGER, PLAIN_PORT, RATE, RECORDINGS, RUN, unit
from sdisup.drill.watch import Watch, holds, port_status, wait_until
from sdisup.encode.command import build_ffmpeg_arguments, missing_capabilities
from sdisup.encode.probe import probe_ffmpeg
from sdisup.errors import SdisupError, UsageError
from sdisup.ledger.lines import Entry, ledger_path, read_ledger
from sdisup.ledger.present import has_waiting

EXIT_DONE, EXIT_EXCEEDED = 0, 1
RECORDED_FRAMES = 2 * RATE
"""How much the port records before each fault."""
ROUNDS = 3
START_LIMIT_S, LEDGER_LIMIT_S, JOB_LIMIT_S = 15.0, 10.0, 40.0


def drill(names: Sequence[str], *, as_json: bool, remark: Callable[[str], None]) -> int:
    """Play the named faults, or all faults; prints the report and returns the exit code. Raises SdisupError."""
    drill_stage.check_machine()
    ffmpeg = Settings.load().ffmpeg
    plain = drill_stage.ports(ffmpeg)[PLAIN_PORT]
    known = known_faults(plain)
    unknown = sorted(set(names) - {fault.name for fault in known})
    if unknown:
        raise UsageError(f"no fault is called {unknown[0]!r}", f"one of: {', '.join(fault.name for fault in known)}")
    if not drill_stage.is_in_scope():
        drill_stage.enter_scope()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with Systemd() as systemd:
        try:
            played = Drill(systemd, ffmpeg, plain, remark)
            judged = played.play([fault for fault in known if not names or fault.name in names])
        finally:
            drill_stage.clear()
    if as_json:
        print(json.dumps(report_json(judged, played.own_start_s, played.disk), indent=2))
    else:
        print(report_table(judged))
        print(f"FFmpeg's own start: {played.own_start_s:.2f} s (median)")
    return EXIT_EXCEEDED if any(problems for _, problems in judged) else EXIT_DONE


class Drill:
    """A drill's ports on their stage, and the faults that are played on them."""

    def __init__(self, systemd: Systemd, ffmpeg: str, plain: Port, remark: Callable[[str], None]) -> None:
        capabilities = probe_ffmpeg(ffmpeg)
        missing = missing_capabilities([plain], ffmpeg, capabilities)
        if missing:
            raise SdisupError(missing[0])
        self._systemd = systemd
        self._remark = remark
        self._ffprobe = ffprobe_beside(ffmpeg)
        self._container = plain.container
        self._ladder_s = plain.stop_quit_s + plain.stop_term_s
        # FFmpeg opens the files of several by the runner's descriptors, which it has not by hand.
        self._command = build_ffmpeg_arguments(plain.replaced(segment_s=0.0), ffmpeg, capabilities)
        self._own_starts_s: list[float] = []
        self.disk = drill_stage.set_up(systemd)
        if self.disk != "ext4":
            remark(f"no loop device can be had here: the small disk is a {self.disk}")
        give_signal()
        drill_stage.write_ports(ffmpeg, capabilities, systemd.version(), filesystem_identity(RECORDINGS))

    @property
    def own_start_s(self) -> float:
        """FFmpeg's own start: seconds from running FFmpeg by hand to its first frame on disk, this drill's median."""
        return statistics.median(self._own_starts_s)

    def play(self, chosen: Sequence[Fault]) -> list[tuple[Result, list[str]]]:
        """Play the faults one after another; returns each result with the limits that it exceeds."""
        return [self._judge(fault) for fault in chosen]

    def _judge(self, fault: Fault) -> tuple[Result, list[str]]:
        """Play a fault and judge it. A limit that is exceeded once may be the machine's; so the median of three counts,
        for the fault as for FFmpeg's own starts beside it."""
        self._remark(f"{fault.title} ...")
        results = [self._round(fault)]
        verdict = self._verdict(fault, results)
        # After one that was never recorded again there is no median.
        if results[0].again_s is not None and (fault.is_quick or verdict[1]):
            results += [self._round(fault) for _ in range(ROUNDS - 1)]
            verdict = self._verdict(fault, results)
        return verdict

    def _verdict(self, fault: Fault, results: Sequence[Result]) -> tuple[Result, list[str]]:
        result, own_start_s = typical(results), statistics.median(self._own_starts_s[-ROUNDS:])
        return result, exceeded(result, fault.limits, own_start_s, fault.cause)

    def _round(self, fault: Fault) -> Result:
        """Start the port, play the fault, stop the port, and remove the round's files."""
        self._own_starts_s.append(self._time_own_start())
        entries_before = len(self._entries(fault.port))
        self._run_job("Start", fault.port)
        watch = Watch(fault, self._wait_recorded(fault.port), self._container)
        watch.play()
        self._wait_entered(fault.port, entries_before, watch)
        self._run_job("Stop", fault.port)
        self._wait_all_entered(fault.port)
        result = self._measure(watch, self._entries(fault.port)[entries_before:])
        for name in os.listdir(RECORDINGS):
            if name.startswith("drill"):
                os.unlink(f"{RECORDINGS}/{name}")
        return result

    def _time_own_start(self) -> float:
        # Without a name, for which somebody else could plant a link.
        file = os.open(RECORDINGS, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            os.fchown(file, os.stat(RECORDINGS).st_uid, -1)
            begun = monotonic()
            program = drill_stage.ffmpeg_by_hand(self._command, file)
            try:
                wait_until(lambda: holds(file, self._container), START_LIMIT_S, "FFmpeg, run by hand, gives no frame")
                return monotonic() - begun
            finally:
                program.end()
        finally:
            os.close(file)

    def _run_job(self, verb: str, port: int) -> None:
        self._systemd.reset_failed(unit(port))
        result = self._systemd.run_jobs(verb, [unit(port)], JOB_LIMIT_S)[unit(port)]
        if result != DONE:
            raise SdisupError(f"{verb.lower()} of {unit(port)}: {result}", f"see: journalctl -u {unit(port)}")

    def _wait_recorded(self, port: int) -> PortStatus:
        """Wait until the port has recorded as much as a fault can cost; returns its status at that moment."""
        found: list[PortStatus] = []

        def has_recorded() -> bool:
            status = port_status(port)
            if status is None or not status.is_recording or status.frame_count < RECORDED_FRAMES:
                return False
            found.append(status)
            return True

        wait_until(has_recorded, START_LIMIT_S, f"{unit(port)} does not record", f"see: journalctl -u {unit(port)}")
        return found[0]

    def _wait_entered(self, port: int, entries_before: int, watch: Watch) -> None:
        """Wait until the ledger has a gap of the fault; the report says so if it never has."""
        since = max(watch.began, (watch.again_at or 0.0) - ROOM_S)
        with suppress(SdisupError):
            wait_until(
                lambda: any(entry_at(gap, "end") > since for gap in self._entries(port)[entries_before:]),
                LEDGER_LIMIT_S,
                "the ledger has no entry",
            )

    def _wait_all_entered(self, port: int) -> None:
        """Wait until the ledger's process has entered all events of the port's runner."""
        with suppress(SdisupError):
            wait_until(lambda: not has_waiting(port, RUN), LEDGER_LIMIT_S, "not all is in the ledger")

    def _entries(self, port: int) -> list[Entry]:
        found = read_ledger(ledger_path(port, LEDGER))
        return [entry for entry in found if isinstance(entry, dict) and entry["kind"] in ("file", "gap")]

    def _measure(self, watch: Watch, entries: Sequence[Entry]) -> Result:
        fault = watch.fault
        gaps = [entry for entry in entries if entry["kind"] == "gap" and entry_at(entry, "end") > watch.began]
        file = next((entry for entry in entries if entry.get("path") == watch.path), None)
        readable_until = None
        if file is not None:
            readable_until = entry_at(file, "start") + self._count_frames(watch.path) / RATE
        lost_s = gap_s = None
        received_until = watch.ended_at if fault.receives_on else watch.began
        if readable_until is not None and received_until is not None:
            lost_s = max(0.0, received_until - readable_until)
        if readable_until is not None and watch.again_at is not None:
            gap_s = watch.again_at - readable_until
        return Result(
            fault=fault.name,
            title=fault.title,
            seen_s=span(watch.began, watch.seen_at),
            # A frozen FFmpeg dies only at the ladder's last step, SIGKILL, which comes that long after the first step.
            acted_s=span(watch.began + self._ladder_s, watch.ended_at) if fault.is_stall else None,
            again_s=span(watch.repaired_at or watch.began, watch.again_at),
            lost_s=lost_s,
            gap_s=gap_s,
            entered_s=sum(float(str(gap["seconds"])) for gap in gaps),
            causes=tuple(dict.fromkeys(str(gap.get("cause")).partition(":")[0] for gap in gaps)),
        )

    def _count_frames(self, path: str) -> int:
        """How many pictures of a file can be decoded."""
        options = "-v quiet -select_streams v:0 -count_frames -show_entries stream=nb_read_frames -of csv=p=0"
        answer, _ = says([self._ffprobe, *options.split(), path])
        text = answer.decode("utf-8", "replace").strip().strip(",")
        return int(text) if text.isdigit() else 0


def span(since: float, until: float | None) -> float | None:
    return None if until is None else max(0.0, until - since)


def entry_at(entry: Entry, which: str) -> float:
    """When an entry of the ledger starts or ends, by CLOCK_MONOTONIC."""
    value = entry.get(f"{which}_monotonic")
    return float(value) if isinstance(value, int | float) else 0.0
