"""No descriptor, process or thread is left, at each place where a runner makes one: an end like any other.

No FFmpeg is left without a reader of its pipe, and nothing is removed under one.
"""

from __future__ import annotations

import _thread
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from appliance import wait_for

from sdisup.contract.files import Exhausted, boot_id, monotonic
from sdisup.contract.options import Options
from sdisup.runner import disk, report
from sdisup.runner.begin import Beginning
from sdisup.runner.main import EXIT_RETRY, EXIT_STOPPED, Runner
from sdisup.runner.unnamed import Spare

FFMPEG = """\
#!/bin/sh
for output; do :; done
cat {media} >"$output"
printf 'frame=25\\nspeed=1x\\nprogress=continue\\n' >&2
head -c 1 >/dev/null
printf 'frame=25\\nspeed=1x\\nprogress=end\\n' >&2
"""
MAKERS: dict[str, tuple[Any, str]] = {
    "open": (os, "open"), "pipe2": (os, "pipe2"), "dup": (os, "dup"), "posix_spawnp": (os, "posix_spawnp"),
    "pidfd_open": (os, "pidfd_open"), "start_new_thread": (_thread, "start_new_thread"),
}  # fmt: skip


class Exhaustion:
    """Lets the `number`th making of a descriptor, process or thread fail, or all from then on."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        *,
        goes_on: bool,
        makers: dict[str, tuple[Any, str]] = MAKERS,
    ) -> None:
        self.made = 0
        self.failed = ""
        self._number, self._goes_on = number, goes_on
        for name, (module, attribute) in makers.items():
            monkeypatch.setattr(module, attribute, self._failing(name, getattr(module, attribute)))

    def _failing(self, name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **more: Any) -> Any:
            self.made += 1
            if self.made == self._number or (self._goes_on and self.made > self._number):
                self.failed = self.failed or name
                if name == "start_new_thread":
                    raise RuntimeError("can't start new thread")
                error = errno.EAGAIN if name in ("posix_spawnp", "fork") else errno.EMFILE
                raise OSError(error, os.strerror(error))
            return make(*arguments, **more)

        return called


class Quick(Runner):
    """It stops when it records, or waits for its next try."""

    def _turn(self, now: float) -> None:
        super()._turn(now)
        if self._loops or (self._attempt is not None and self._attempt.meter.first_media_at is not None):
            self.stop()
            self._beginning.wake()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("media") / "a.mkv"
    source = "-f lavfi -i testsrc2=size=64x36:rate=25 -frames:v 25 -c:v libx264 -preset ultrafast -f matroska"
    subprocess.run(["ffmpeg", "-v", "error", *source.split(), str(path)], check=True)
    yield path
    path.unlink()


def children() -> set[str]:
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        # A thread may end meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            found |= set((task / "children").read_text().split())
    return found


@pytest.mark.parametrize("goes_on", [False, True])
def test_wherever_nothing_is_left_it_is_an_end_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: Path, goes_on: bool
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(FFMPEG.format(media=media))
    program.chmod(0o755)
    monkeypatch.setattr(report.Journal, "_write", lambda *_: None)
    real = os.set_blocking
    # But for the descriptor of the journal, which is pytest's here.
    monkeypatch.setattr(os, "set_blocking", lambda number, is_blocking: number == 2 or real(number, is_blocking))
    monkeypatch.setattr(disk, "FIRST_LOOK_S", 0.002)
    boot_id()
    places: list[str] = []
    for number in range(1, 200):
        place = tmp_path / str(number)
        failed = run_once(place, program, media, Exhaustion, number, goes_on=goes_on)
        if not failed:
            break
        places.append(failed)
    assert set(places) == set(MAKERS), places


def run_once(
    place: Path, program: Path, media: Path, exhaustion: type[Exhaustion], number: int, *, goes_on: bool
) -> str:
    """One runner in a place of its own; where it failed."""
    recordings = place / "recordings"
    recordings.mkdir(parents=True)
    (place / "port-3").mkdir()
    options = Options(
        command=[str(program), "-f", "matroska", "{output}"], port=3, name="CAM", codec="h264", container="mkv",
        source="test", input="a picture", without_signal="", audio_options="", recordings=str(recordings), revision="",
        filesystem="", rate=25.0, stall_timeout_s=12.0, start_timeout_s=30.0, sync_interval_s=0.01, stop_quit_s=5.0,
        stop_start_quit_s=5.0, stop_term_s=2.0, run_directory=str(place),
    )  # fmt: skip
    before, descriptors, threads = children(), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    began = monotonic()
    spare = Spare()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(disk, "Spare", lambda: spare)
        patched.setenv("RUNTIME_DIRECTORY", str(place / "port-3"))
        made = exhaustion(patched, number, goes_on=goes_on)
        try:
            beginning = Beginning(options)
            beginning.spawn_first()
            beginning.let_start()
            code = Quick(beginning).run()
        except (OSError, Exhausted):
            # Before there is a runner: main() ends for a restart, and a process takes its descriptors with it.
            assert made.failed in ("pipe2", "open"), made.failed
            assert children() == before
            assert list(recordings.iterdir()) == []
            return made.failed
    what = (number, made.failed)
    assert code in (EXIT_STOPPED, EXIT_RETRY), what
    assert monotonic() - began < 10, what
    # No FFmpeg lives on, and what it wrote is there.
    wait_for(lambda: children() <= before, 5, f"{what}: no FFmpeg is left")
    for file in recordings.iterdir():
        assert file.read_bytes() == media.read_bytes(), what
    if not made.failed:
        assert len(list(recordings.iterdir())) == 1
    for kept in [descriptor for pair in spare._kept for descriptor in pair]:
        os.close(kept)
    # A thread closes what it has itself.
    wait_for(lambda: len(os.listdir("/proc/self/task")) <= threads, 20, f"{what}: no thread is left")
    # The spool stays open for as long as the process lives.
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 1, 5, f"{what}: no descriptor is left")
    for descriptor in [int(name) for name in os.listdir("/proc/self/fd")]:
        if opened(descriptor).endswith("/ports/3/spool"):
            os.close(descriptor)
    return made.failed


def opened(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
