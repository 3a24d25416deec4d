"""The stand-in for Deltacast's FFmpeg does what is known of the true one: its words, exits and timing.

It runs as an ordinary process, with the real FFmpeg of this machine behind it, or the one that
SDISUP_STANDIN_FFMPEG names.
"""

from __future__ import annotations

import os
import re
import select
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from standin_control import STANDIN, write_steering

from sdisup.config.settings import parse_settings
from sdisup.encode.command import Capabilities, build_ffmpeg_arguments
from sdisup.encode.probe import probe_ffmpeg
from sdisup.runner.progress import LogLine, Progress, ProgressParser

# The tests of sdisup with it, test_videomaster.py, are in every run; these are of the stand-in itself.
pytestmark = pytest.mark.slow

EIO, EINVAL, ERANGE, ENOMEM, ENOSPC = 251, 234, 222, 244, 228
COMPLETE_S = 60.0  # when to give up waiting for FFmpeg to finish a file
NO_SIGNAL_AT_START = ["Failed to stop stream", "Failed to stop stream"]
SLOT_FAULT = ["Failed to lock slot handle.", "Failed to get data buffers", "Error during demuxing: Input/output error"]
LOST = [
    "Timeout while waiting for slot lock",
    "Failed to get data buffers",
    "Error during demuxing: Input/output error",
]


class Running:
    """A stand-in at work, and all that it has said so far."""

    def __init__(self, command: list[str], directory: Path) -> None:
        environment = {**os.environ, "SDISUP_STANDIN_DIR": str(directory)}
        self.directory, self.output = directory, Path(command[-1])
        self.lines: list[str] = []
        self.blocks: list[Progress] = []
        self.raw_bytes = 0
        self._parser = ProgressParser()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        )

    @property
    def frame(self) -> int:
        return (self.blocks[-1].frame or 0) if self.blocks else 0

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def read(self, timeout_s: float) -> bool:
        """Take in what it says next; False when nothing came in time or its stderr has ended."""
        assert self.process.stderr is not None
        if not select.select([self.process.stderr], [], [], max(0.0, timeout_s))[0]:
            return False
        data = os.read(self.process.stderr.fileno(), 1 << 16)
        self.raw_bytes += len(data)
        for record in self._parser.feed(data):
            if isinstance(record, LogLine):
                # Without the object that says it: [videomaster @ 0x…]
                self.lines.append(re.sub(r"^\[[^]]* @ 0x\w+\] |^\[fc#0\] ", "", record.text))
            else:
                self.blocks.append(record)
        return bool(data)

    def until(self, condition: Callable[[], object], timeout_s: float = COMPLETE_S) -> None:
        """Listen until the condition holds; fail, quoting what was said, if it does not in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not self.read(deadline - time.monotonic()):
                pytest.fail(f"not in time; frame {self.frame} and:\n{self.text[-3000:]}", pytrace=False)

    def records(self, frames: int = 10) -> Running:
        self.until(lambda: self.frame >= frames)
        return self

    def listen(self, seconds: float) -> None:
        """Listen for so long, for what must not happen meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.read(deadline - time.monotonic()):
            continue

    def end(self, timeout_s: float = COMPLETE_S) -> int:
        """Its exit code (minus the signal that ended it), once all that it said is read."""
        deadline = time.monotonic() + timeout_s
        while self.read(deadline - time.monotonic()):
            continue
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def quit(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"q")
        self.process.stdin.flush()

    def signal(self, number: int, times: int = 1) -> None:
        """Send it; again only when the one before has surely been taken, since pending ones are one."""
        for _ in range(times):
            self.process.send_signal(number)
            time.sleep(0.03)

    def steer(self, behaviour: str, **parameters: Any) -> None:
        write_steering(self.directory, 0, behaviour, **parameters)

    def child(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


Start = Callable[..., Running]
Change = Callable[[list[str]], list[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts stand-ins, each on a card of its own or `beside` another: start("no-signal", lost_s=2)."""
    running: list[Running] = []

    def begin(
        behaviour: str = "ok", change: Change = list, beside: Running | None = None, **parameters: Any
    ) -> Running:
        directory = beside.directory if beside else tmp_path / str(len(running))
        directory.mkdir(exist_ok=True)
        running.append(start_in(directory, behaviour, change, **parameters))
        return running[-1]

    yield begin
    for one in running:
        one.close()


def start_in(directory: Path, behaviour: str = "ok", change: Change = list, **parameters: Any) -> Running:
    """Start one on the card of that directory, beside any that run on it; `change` changes its arguments."""
    write_steering(directory, 0, behaviour, **parameters)
    command = change(arguments())
    assert command[-1] == "{output}"
    files = len(list(directory.glob("*.mkv")))
    return Running([*command[:-1], str(directory / f"{files}.mkv")], directory)


def arguments(channel: int = 0, **source: object) -> list[str]:
    """What sdisup runs for such a channel."""
    table = {"source": {"kind": "videomaster", "channel": channel, **source}, "container": "mkv", "bitrate_kbps": 400}
    port = parse_settings([("test.toml", {"appliance": {"ports": 1}, "defaults": {"segment_s": 0, **table}})]).ports[0]
    every = frozenset({"libx264", "aac"})
    return build_ffmpeg_arguments(
        port, str(STANDIN), Capabilities("7.1.1", every, frozenset({"videomaster"}), hybrid_fragmented=False)
    )


def without(*options: str) -> Change:
    """Leave options out, with their values; -xerror has none."""

    def change(words: list[str]) -> list[str]:
        for option in options:
            at = words.index(option)
            del words[at : at + (1 if option == "-xerror" else 2)]
        return words

    return change


def setting(option: str, value: str) -> Change:
    """Give an option of the list, or one before the input, another value."""

    def change(words: list[str]) -> list[str]:
        at = words.index(option) if option in words else words.index("-i")
        words[at : at + (2 if words[at] == option else 0)] = [option, value]
        return words

    return change


def replacing(old: list[str], new: list[str]) -> Change:
    def change(words: list[str]) -> list[str]:
        at = next(n for n in range(len(words)) if words[n : n + len(old)] == old)
        return [*words[:at], *new, *words[at + len(old) :]]

    return change


lenient = without("-xerror", "-abort_on")


def buffered(words: list[str]) -> list[str]:
    """Keep what the container holds back in memory, as FFmpeg does unasked."""
    return without("-flush_packets", "-cluster_time_limit")(lenient(words))


def plain(words: list[str]) -> list[str]:
    """The real FFmpeg, with a test source in the card's place."""
    source = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25,realtime[out0];sine=sample_rate=48000[out1]"]
    return [*words[: words.index("-f")], *source, *words[words.index("-i") + 2 :]]


def pace(run: Running, yardstick: Running) -> float:
    """How many frames one records while another records one."""

    def frames() -> tuple[int, int]:
        while run.read(0) or yardstick.read(0):
            continue
        return run.frame, yardstick.frame

    (first, first_beside), blocks = frames(), len(run.blocks)
    while len(run.blocks) < blocks + 16:
        run.read(1)
        yardstick.read(0)
    last, last_beside = frames()
    return (last - first) / (last_beside - first_beside)


def count_frames(path: Path) -> int:
    """The pictures that can be decoded; 0 when there are none, or no file."""
    options = "-v quiet -select_streams v:0 -count_frames -show_entries stream=nb_read_frames -of csv=p=0"
    found = subprocess.run(["ffprobe", *options.split(), str(path)], capture_output=True, text=True, check=False)
    return int(found.stdout.strip().strip(",") or 0)


def is_complete(run: Running) -> bool:
    """Whether the file holds every frame that was counted, and was finished: then it knows its length."""
    command = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", str(run.output)]
    seconds = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return seconds not in ("", "N/A") and count_frames(run.output) == run.frame > 0


def is_gone(pid: int) -> bool:
    """Whether a process is dead; whoever has inherited it may not have collected it yet."""
    deadline = time.monotonic() + COMPLETE_S
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


# ---------------------------------------------------------------- the true ten seconds


@pytest.fixture(scope="module", autouse=True)
def ten_seconds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[tuple[Running, int, float]]]:
    """A cable pulled for as long as the card is really waited for, beside the other tests."""

    def pull(run: Running) -> tuple[Running, int, float]:
        run.records(5).steer("no-signal")
        pulled = time.monotonic()
        run.listen(1.0)
        frames_then = len(run.blocks)
        run.until(lambda: LOST[0] in run.lines)
        lost = time.monotonic()
        assert run.end() == 0
        return run, frames_then, lost - pulled

    run = start_in(tmp_path_factory.mktemp("ten-seconds"), change=lenient)
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(pull, run)
    run.close()


# ---------------------------------------------------------------- a recording


def test_frames_are_encoded_counted_and_written_in_real_time(start: Start) -> None:
    # Beside FFmpeg's own pacing.
    run, beside = start().records(25), start(change=plain).records(25)
    assert 0.75 < pace(run, beside) < 1.25
    run.quit()
    assert run.end() == 0
    assert is_complete(run)
    assert run.blocks[-1].ended
    assert run.blocks[-1].drop_frames == 0


def test_the_signal_is_what_the_channel_is_steered_to(start: Start) -> None:
    run = start(size="512x288", rate="30000/1001", interlaced=True, change=setting("-r", "30000/1001")).records(20)
    run.quit()
    run.end()
    assert "512x288" in run.text
    assert run.blocks[-1].drop_frames + run.blocks[-1].dup_frames == 0
    assert is_complete(run)


def test_one_signal_ends_a_recording_with_a_complete_file(start: Start) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT)
    runs = [start() for _ in numbers]
    for run, number in zip(runs, numbers, strict=True):
        run.records(5).signal(number)
    for run in runs:
        assert run.end() == 255
        assert is_complete(run)


def test_with_nostdin_one_sigterm_is_not_heard(start: Start) -> None:
    run = start(change=lambda words: [words[0], "-nostdin", *buffered(words)[1:]]).records()
    run.signal(signal.SIGTERM)
    run.records(run.frame + 15)
    run.signal(signal.SIGTERM)
    assert run.end() == 255
    assert not is_complete(run)


def test_no_child_outlives_a_stand_in_that_is_killed(start: Start) -> None:
    run = start().records(1)
    child = run.child()
    run.process.kill()
    assert run.end() == -signal.SIGKILL
    assert is_gone(child)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("board-missing", "No DELTACAST boards detected"),
        ("channel-missing", "Invalid channel index: 0"),
        ("channel-unusable", "Failed to get stream properties"),
        ("busy", "Failed to open stream handle."),
        ("unusable", "Hardware time stamping is not supported on the device."),
    ],
)
def test_a_board_or_channel_that_cannot_be_used(start: Start, behaviour: str, message: str) -> None:
    run = start(behaviour)
    assert run.end() == EIO
    assert message in run.lines
    assert run.lines[-1] == "Error opening input files: Input/output error"
    assert not run.output.exists()


def test_the_message_and_the_exit_code_of_a_refusal_may_be_chosen(start: Start) -> None:
    run = start("unusable", message="LTC companion card is not detected", status=EINVAL)
    assert run.end() == EINVAL
    assert "LTC companion card is not detected" in run.lines


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (replacing(["stream 0 on board 0"], ["stream 9 on board 0"]), EIO, "Invalid channel index: 9"),
        (replacing(["stream 0 on board 0"], ["stream 0 on board 1"]), EIO, "Invalid board index: 1"),
        (replacing(["stream 0 on board 0"], ["stream zero"]), EINVAL, "Unknown stream selected"),
        (replacing(["stream 0 on board 0"], ["dummy"]), EINVAL, "Board index is not set"),
        (setting("-sample_rate", "96000"), ERANGE, "out of range [0 - 48000]"),
        (setting("-sample_size", "32"), ERANGE, "Error setting option sample_size to value 32."),
        (setting("-buffer_packing", "YUV444"), EINVAL, "Error setting option buffer_packing to value YUV444."),
        (setting("-timestamp_source", "gps"), EINVAL, 'Unable to parse option value "gps"'),
        # Before the input they would be its options; behind it they are the output's, where they do nothing.
        (replacing(["-nb_channels", "2"], []), None, "Cannot allocate memory"),
    ],
)
def test_options_that_the_demuxer_refuses(start: Start, change: Change, code: int | None, message: str) -> None:
    run = start(change=change)
    assert run.end() == (ENOMEM if code is None else code)
    assert message in run.text


def test_an_option_that_nobody_knows_is_refused_by_the_real_ffmpeg(start: Start) -> None:
    run = start(change=setting("-bufer_packing", "YUV422_8"))
    assert run.end() in (1, 8)  # FFmpeg 5.1, 7.1
    assert "Unrecognized option 'bufer_packing'" in run.text


def test_board_and_channel_may_be_given_as_numbers(start: Start) -> None:
    dummy = ["-board_index", "0", "-channel_index", "0", "-i", "dummy"]
    run = start(change=replacing(["-i", "stream 0 on board 0"], dummy)).records(1)
    assert "Board index: 0, Stream index: 0, Timestamp source: osc" in run.lines


def test_two_on_one_channel(start: Start) -> None:
    first = start().records(1)
    second = start(beside=first)
    assert second.end() == EIO
    assert "Failed to open stream handle." in second.lines
    first.records(first.frame + 10)


# ---------------------------------------------------------------- audio options


def test_without_all_three_audio_options_there_is_no_sound(start: Start) -> None:
    both = without("-sample_size", "-af", "-c:a", "-b:a")
    run = start(change=lambda words: replacing(["-map", "0:a:0"], [])(both(words))).records()
    run.quit()
    assert run.end() == 0
    assert "Invalid audio properties: audio_nb_channels=2, audio_sample_rate=48000, audio_sample_size=0" in run.text
    assert is_complete(run)
    # Asked for the sound all the same, it ends as without a signal.
    asked = start(change=without("-sample_size"))
    assert asked.end() in (1, EINVAL)
    assert "matches no streams" in asked.text


def test_without_the_number_of_channels_it_ends_after_two_frames_with_exit_0(start: Start) -> None:
    run = start(change=lambda words: without("-nb_channels")(lenient(words)))
    assert run.end() == 0
    assert "Cannot allocate memory" in run.text
    assert count_frames(run.output) == 2


def test_22050_hz_is_accepted_and_17_channels_are_its_end(start: Start) -> None:
    run = start(change=setting("-sample_rate", "22050")).records()
    assert "22050 Hz" in run.text
    run.close()
    assert start(change=setting("-nb_channels", "17")).end() == -signal.SIGSEGV


def test_without_a_packing_it_records_another_picture(start: Start) -> None:
    run = start(change=without("-buffer_packing")).records(1)
    assert "yuyv422" in run.text


def test_audio_options_and_no_audio_embedded(start: Start) -> None:
    run = start("no-audio")
    run.until(lambda: "to stop" in run.text)
    run.listen(1.5)
    assert run.blocks == []
    assert not run.output.exists() or run.output.stat().st_size == 0
    run.quit()
    assert run.end() == 0
    assert run.frame > 30
    assert is_complete(run)


# ---------------------------------------------------------------- no signal, no frames


def graph(words: list[str]) -> list[str]:
    return replacing(["-map", "0:v:0"], ["-filter_complex", "[0:v]null[v]", "-map", "[v]"])(words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (list, "Stream map '' matches no streams."),
        (lambda words: without("-map")(without("-map")(words)), "Output file does not contain any stream"),
        (graph, "Stream specifier ':v' in filtergraph description [0:v]null[v] matches no streams."),
    ],
)
def test_no_signal_at_the_start(start: Start, change: Change, message: str) -> None:
    waits = start("no-frames", no_frames_s=1000)
    run = start("no-signal", change=change)
    assert run.end() == EINVAL
    assert waits.process.poll() is None
    assert message in run.lines
    assert run.lines[-2:] == NO_SIGNAL_AT_START
    assert not run.output.exists()


def test_locked_without_frames(start: Start) -> None:
    told, plain, stopped = (
        start("no-frames", no_frames_s=2),
        start("no-frames", lenient, no_frames_s=2),
        start("no-frames", lenient, no_frames_s=2),
    )
    stopped.until(lambda: "to stop" in stopped.text)
    stopped.signal(signal.SIGTERM)
    for run, code in ((told, EINVAL), (plain, 0), (stopped, 255)):
        assert run.end(2 + COMPLETE_S) == code
        # One SIGTERM does not shorten it.
        assert time.monotonic() - run.started >= 2
        assert [line for line in run.lines if line in LOST] == LOST
        assert not any(block.frame for block in run.blocks)
    # FFmpeg 7.1 and 5.1.
    assert "Output file is empty, nothing was encoded" in told.text or "Empty output" in told.lines


def test_the_cable_pulled_with_xerror(start: Start) -> None:
    run = start().records()
    run.steer("no-signal", lost_s=1)
    assert run.end(1 + COMPLETE_S) == EIO
    assert [line for line in run.lines if line in LOST] == LOST
    assert is_complete(run)


def test_what_is_asked_while_the_cable_is_pulled_is_done_at_its_end(start: Start) -> None:
    quit_once, one_signal, two_signals = runs = [start(change=buffered) for _ in range(3)]
    for run in runs:
        run.records().steer("no-signal", lost_s=2)
    pulled = time.monotonic()
    quit_once.listen(0.3)
    quit_once.quit()
    one_signal.signal(signal.SIGTERM)
    two_signals.signal(signal.SIGTERM, 2)
    for run, code in ((quit_once, 0), (one_signal, 255), (two_signals, 255)):
        assert run.end(2 + COMPLETE_S) == code
        assert time.monotonic() - pulled >= 2
        assert is_complete(run) == (run is not two_signals)
    assert two_signals.output.stat().st_size == 0


def test_four_signals_or_sigkill_end_it_at_once_while_the_cable_is_pulled(start: Start) -> None:
    signalled, killed = runs = [start(change=buffered) for _ in range(2)]
    for run in runs:
        run.records(5).steer("no-signal", lost_s=1000)
    killed.listen(0.3)
    children = [run.child() for run in runs]
    signalled.signal(signal.SIGTERM, 4)
    killed.signal(signal.SIGKILL)
    assert [run.end() for run in runs] == [123, -signal.SIGKILL]
    assert all(is_gone(child) for child in children)
    assert not any(is_complete(run) for run in runs)


def test_a_cable_that_is_back_in_time_leaves_a_gap_and_no_message(start: Start) -> None:
    run = start().records()
    run.steer("no-signal")
    run.listen(1.0)
    frame, said = run.frame, len(run.lines)
    run.steer("ok")
    # Constant rate: the frames that did not come are there twice, and the time is the wall's.
    run.records(frame + 30)
    assert 15 <= run.blocks[-1].dup_frames <= 30
    run.quit()
    assert run.end() == 0
    assert not [line for line in run.lines[said:] if "Error" in line or "Timeout" in line]
    assert is_complete(run)


# ---------------------------------------------------------------- other trouble


def test_a_format_change_that_goes_on(start: Start) -> None:
    larger, doubled, smaller = start(), start(), start(change=lenient)
    for run, mode in ((larger, "larger"), (doubled, "double-rate"), (smaller, "smaller")):
        run.records(1).steer("format-change", mode=mode)
    smaller.until(lambda: "Invalid buffer size, packet size 57600 < expected frame_size 115200" in smaller.text)
    for run in (larger, doubled):
        run.records(run.frame + 30)
    assert larger.blocks[-1].drop_frames == 0
    assert doubled.blocks[-1].drop_frames >= 10


def test_a_format_change_that_stops_is_a_cable_pulled(start: Start) -> None:
    run = start().records(5)
    run.steer("format-change", lost_s=0.5, size="640x360")
    assert run.end() == EIO
    assert LOST[0] in run.lines
    assert "640x360" in start("format-change", beside=run, size="640x360").records(1).text


def test_a_crash(start: Start) -> None:
    run = start("crash", after_frames=50)
    run.records(1)
    child = run.child()
    assert run.end() == -signal.SIGSEGV
    assert is_gone(child)
    said = start("crash", messages=["the card is on fire"], status=3)
    assert said.end() == 3
    assert "the card is on fire" in said.lines


def test_a_full_disk(start: Start) -> None:
    run = start("disk-full", after_frames=10)
    assert run.end() == ENOSPC
    assert "Error writing trailer: No space left on device" in run.text
    assert run.blocks[-1].ended


def test_nothing_is_heard_but_sigkill(start: Start) -> None:
    hanging, deaf = start(), start()
    children = [run.records(1).child() for run in (hanging, deaf)]
    hanging.steer("hang")
    deaf.steer("deaf")
    deaf.listen(0.2)
    hanging.listen(0.2)
    frame = hanging.frame
    for run in (hanging, deaf):
        run.quit()
        run.signal(signal.SIGTERM, 5)
    deaf.records(deaf.frame + 10)
    hanging.listen(0.1)
    assert hanging.frame == frame
    for run in (hanging, deaf):
        assert run.process.poll() is None
        run.signal(signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
    assert all(is_gone(child) for child in children)


def test_hang_at_open_and_what_ends_it(start: Start) -> None:
    run = start("hang-at-open")
    run.listen(0.4)
    run.quit()
    run.signal(signal.SIGTERM)
    run.listen(0.3)
    assert run.process.poll() is None
    assert run.blocks == []
    run.signal(signal.SIGTERM, 3)
    assert run.end() == 123


def test_a_slow_start(start: Start) -> None:
    run = start("slow-start", seconds=1).records(1)
    assert time.monotonic() - run.started >= 1


def test_an_encoder_that_is_too_slow(start: Start) -> None:
    """The card loses what it does not take, and the time of the frames tells so."""
    run, full = start("slow", fraction=0.25).records(25), start().records(25)
    assert 0.75 < pace(run, full) < 1.25
    run.quit()
    run.end()
    last = run.blocks[-1]
    assert last.dup_frames == pytest.approx(0.75 * run.frame, abs=4)


def test_frames_that_are_lost_one_by_one_are_repeated_but_for_the_first(start: Start) -> None:
    run, few = start("losses", share=0.5).records(80), start("losses").records(80)
    assert run.blocks[-1].drop_frames == 0
    # Each second frame is lost, so that of n received ones n - 1 have a lost one before them.
    counted = [(block.frame or 0, block.dup_frames) for block in run.blocks]
    unrepeated = [frames - 2 * copies - 1 for frames, copies in counted if frames > 30]
    assert statistics.median(unrepeated) == 1
    assert 1 / 50 < few.blocks[-1].dup_frames / few.frame < 1 / 20


def test_a_start_looks_at_the_signal_and_then_has_a_burst(start: Start) -> None:
    run = start()
    run.until(lambda: run.frame)
    assert time.monotonic() - run.started >= 0.8
    # What has gone by meanwhile is encoded at once: a progress block later it is there.
    run.until(lambda: run.blocks[-2:-1] and run.blocks[-2].frame)
    assert run.frame >= 20


def test_the_driver_fails(start: Start) -> None:
    run = start().records(30)
    run.steer("slot-fault")
    assert run.end() == EIO
    assert [line for line in run.lines if line in SLOT_FAULT] == SLOT_FAULT
    assert is_complete(run)


def test_a_library_is_missing(start: Start) -> None:
    run = start().records(1)
    (run.directory / "library-missing").touch()
    second = start(beside=run)
    assert second.end() == 127
    (line,) = second.lines
    assert line.endswith(
        ": error while loading shared libraries: libvideomasterhd.so: "
        "cannot open shared object file: No such file or directory"
    )
    run.records(run.frame + 10)


def test_audio_that_vanishes_holds_the_file_back(start: Start) -> None:
    """FACTS 7: the muxer waits for it, unless the command line says how long."""
    run = start(change=setting("-max_interleave_delta", "10000000")).records(50)
    run.steer("no-audio")
    run.listen(1)
    size = run.output.stat().st_size
    frame = run.frame
    run.records(frame + 75)
    assert run.output.stat().st_size < size + 5000
    run.quit()
    assert run.end() == 0
    assert is_complete(run)


def test_a_line_without_an_end(start: Start) -> None:
    run = start().records(5)
    run.steer("long-line")
    run.until(lambda: run.raw_bytes > 10_000_000)
    assert not any(set(line) == {"x"} and len(line) < 4096 for line in run.lines)
    run.records(run.frame + 10)


def test_a_flood_of_messages(start: Start) -> None:
    run = start("flood", lines_per_s=2000).records(25)
    assert sum("Thread message queue blocking" in line for line in run.lines) > 1000


# ---------------------------------------------------------------- what it answers


def test_it_answers_as_an_ffmpeg_that_has_the_input() -> None:
    real = probe_ffmpeg(os.environ.get("SDISUP_STANDIN_FFMPEG", "/usr/bin/ffmpeg"))
    played = probe_ffmpeg(str(STANDIN))
    assert played.inputs == real.inputs | {"videomaster"}
    assert (played.version, played.encoders, played.hybrid_fragmented) == (
        real.version,
        real.encoders,
        real.hybrid_fragmented,
    )
    devices = subprocess.run([STANDIN, "-hide_banner", "-devices"], capture_output=True, text=True, check=True).stdout
    assert " videomaster " in devices


def test_it_lists_the_locked_channels(tmp_path: Path) -> None:
    def sources() -> list[str]:
        command = [str(STANDIN), "-hide_banner", "-sources", "videomaster"]
        environment = {**os.environ, "SDISUP_STANDIN_DIR": str(tmp_path)}
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return result.stdout.splitlines()

    write_steering(tmp_path, 0, "ok", size="1920x1080", rate=25, interlaced=True)
    for channel in range(1, 6):
        write_steering(tmp_path, channel, "no-signal")
    write_steering(tmp_path, 6, "ok", rate="30000/1001")
    found = sources()
    assert found[0] == "Auto-detected sources for videomaster:"
    assert found[1].startswith("  stream 0 on board 0 [SDI video: 1920x1080i50.000 (interface: ")
    assert found[1].endswith("] (video, audio)")
    assert found[2].startswith("  stream 6 on board 0 [SDI video: 320x180p29.970 ")
    assert found[3].startswith("  stream 7 on board 0 [SDI video: 320x180p25.000 ")
    assert len(found) == 4
    write_steering(tmp_path, 0, "board-missing")
    assert sources()[1:] == ["Cannot list sources: Input/output error"]


def test_the_cable_pulled_for_ten_seconds(ten_seconds: Future[tuple[Running, int, float]]) -> None:
    run, blocks, waited_s = ten_seconds.result(COMPLETE_S)
    # No-frames at the start takes 20 s.
    assert 9.9 < waited_s < 15
    # It goes on telling its progress, four times a second, and makes none.
    assert len(run.blocks) - blocks > 30
    assert len({block.frame for block in run.blocks[blocks:]}) == 1
    assert [line for line in run.lines if line in LOST] == LOST
    assert is_complete(run)
