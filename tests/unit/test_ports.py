"""Starting and stopping ports: what becomes of each, with a scripted systemd."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from sdisup import aio
from sdisup.cli.commands import _report
from sdisup.contract.applied import Applied, AppliedPort
from sdisup.contract.requests import Request
from sdisup.contract.status import PortStatus
from sdisup.control import api, ports, systemd, takes
from sdisup.control.api import CodecType, PortRecorder, RecorderConfig, RecorderManager
from sdisup.control.bus import SystemdError, explain
from sdisup.control.overrides import unit_problem
from sdisup.control.ports import Outcome, start_ports, stop_ports
from sdisup.control.systemd import DONE, WAITING, Loaded, _Stopped
from sdisup.control.takes import is_file_path, make_request
from sdisup.control.units import RUNNER
from sdisup.errors import ConfigError, RecordingError, RootError, SdisupError, UsageError

PORT = AppliedPort(3, "CAM3", "h264", "/r", False, "rev")

OWN = Loaded("loaded", [[*RUNNER, "--port=3", "--name=CAM3", "--", "/usr/bin/ffmpeg", "{output}"]])
FOREIGN = Loaded("loaded", [["/usr/bin/ffmpeg", "-i", "x", "/srv/recordings/a.mp4"]])


class Script:
    """systemd and the ports' status files: `job` is what a job does to the port, and its result."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, job: Callable[[Script], str | SystemdError]) -> None:
        self.job = job
        self.state, self.reason, self.request_id = "stopped", "", ""
        self.pid: int | None = None
        self.left: Request | None = None
        self.is_taken = False
        self.calls: list[tuple[str, list[str]]] = []
        self.unit = OWN
        monkeypatch.setattr(systemd, "Systemd", lambda: self)
        monkeypatch.setattr(ports, "statuses", lambda asked, *_: [self.status() for _ in asked])
        monkeypatch.setattr(ports, "leave_take_request", self.leave)
        monkeypatch.setattr(ports, "_take_back", self.take_back)
        monkeypatch.setattr(ports, "POLL_S", 0.0)
        monkeypatch.setattr(ports, "write_status", lambda status: None)

    def status(self) -> PortStatus:
        is_recording = self.state == "recording"
        return PortStatus(
            port_index=3, state=self.state, is_recording=is_recording, reason=self.reason,
            request_id=self.request_id, current_file="/r/a.mp4" if is_recording else None, pid=self.pid,
        )  # fmt: skip

    def leave(self, port: AppliedPort, request: Request) -> None:
        if self.is_taken:
            raise FileExistsError
        self.left = request

    def claim(self, state: str = "recording") -> str:
        """A runner starts, and claims what was left."""
        self.request_id, self.left = (self.left.request_id if self.left else ""), None
        self.state = state
        return DONE

    def take_back(self, _: int, request: Request) -> bool:
        is_there, self.left = self.left is request, None
        return is_there

    def run_jobs(
        self, verb: str, units: Iterable[str], timeout_s: float, start_s: float | None = None
    ) -> dict[str, str | SystemdError]:
        self.calls.append((verb, list(units)))
        self.limit_s, self.start_s = timeout_s, start_s
        return {unit: self.job(self) for unit in self.calls[-1][1]}

    def reset_all(self, units: Iterable[str]) -> dict[str, SystemdError]:
        self.calls += [("reset", [unit]) for unit in units]
        return {}

    def loaded(self, unit: str) -> Loaded:
        return self.unit

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        return


def request(_: AppliedPort) -> Request:
    return Request(request_id="mine", take="final")


def other_starts(script: Script) -> str:
    """Another program's start came first: the runner claimed nothing of ours."""
    script.state = "recording"
    return DONE


def claimed_by_other(script: Script) -> str:
    script.claim()
    script.request_id = "theirs"
    return DONE


def stopping(script: Script) -> str:
    script.state = "stopped"
    return DONE


def starting(script: Script) -> str:
    script.state = "starting"
    return WAITING


def failing(script: Script) -> str:
    script.claim("failed")
    script.reason = "no such encoder"
    return "failed"


CASES: list[tuple[Callable[[Script], Any], str, str]] = [
    (Script.claim, ports.RECORDS, "port 3 (CAM3) records to /r/a.mp4"),
    (lambda script: script.claim("no-signal"), ports.NO_SIGNAL, "port 3 (CAM3) is started and does not record yet: no signal; waiting"),  # noqa: E501
    (failing, ports.CANNOT_RECORD, "port 3 (CAM3) does not record: no such encoder"),
    (lambda _: "timeout", ports.CANNOT_RECORD, "port 3 (CAM3) does not record: systemd's job ended with 'timeout'"),
    (starting, ports.WAITS, "port 3 (CAM3): no frame on disk within 0 s: starting: no word from FFmpeg; it goes on trying"),  # noqa: E501
    (lambda _: SystemdError("systemd did not answer in time"), ports.REFUSED, "port 3 (CAM3): systemd did not answer in time"),  # noqa: E501
]  # fmt: skip


@pytest.mark.parametrize(("job", "kind", "text"), CASES)
@pytest.mark.parametrize("is_take", [False, True])
def test_what_becomes_of_a_start(
    monkeypatch: pytest.MonkeyPatch, job: Any, kind: str, text: str, is_take: bool
) -> None:
    """The same with a take and without."""
    script = Script(monkeypatch, job)
    (outcome,) = start_ports([PORT], 0.0, request=request if is_take else None)
    assert (outcome.kind, outcome.text) == (kind, text)
    assert script.left is None or job is starting
    assert outcome.ok == (kind == ports.RECORDS)


def test_a_start_without_a_signal_is_over_when_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the hour that was asked for."""
    script = Script(monkeypatch, lambda script: script.claim("no-signal"))
    script.reason = "no signal on board 0 channel 3; waiting"
    (outcome,) = start_ports([PORT], 3600.0)
    assert outcome.text == "port 3 (CAM3) is started and does not record yet: no signal on board 0 channel 3; waiting"


@pytest.mark.parametrize(
    ("job", "kind"), [(starting, ports.BEGUN), (failing, ports.BEGUN), (CASES[-1][0], ports.REFUSED)]
)
@pytest.mark.parametrize("restart", [False, True])
def test_a_start_that_waits_for_nothing(monkeypatch: pytest.MonkeyPatch, job: Any, kind: str, restart: bool) -> None:
    script = Script(monkeypatch, job)
    (outcome,) = start_ports([PORT], None, restart=restart)
    assert outcome.kind == kind
    assert script.limit_s == 0.0
    if kind == ports.BEGUN:
        assert (outcome.ok, outcome.text) == (True, "port 3 (CAM3) is being started")


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("job", [starting, failing, lambda _: "timeout"])
def test_a_unit_that_does_not_run_sdisup_is_said(monkeypatch: pytest.MonkeyPatch, job: Any, restart: bool) -> None:
    """No runner says why: systemd starts something else, and waits for its word."""
    script = Script(monkeypatch, job)
    script.unit = FOREIGN
    (outcome,) = start_ports([PORT], 0.0, restart=restart)
    assert outcome.kind == ports.CANNOT_RECORD
    assert outcome.text.startswith("port 3 (CAM3) does not record: ExecStart= of sdi-record@3.service is not sdisup's")
    # The stop of a restart has its own time.
    assert script.start_s == (0.0 if restart else None)


@pytest.mark.parametrize(
    ("loaded", "words"),
    [
        (OWN, ""),
        (Loaded("loaded", [["/usr/bin/nice", "-n", "5", *OWN.commands[0]]]), ""),
        # The runner says what it does not understand, and records.
        (Loaded("loaded", [[*RUNNER, "--port=3", "--new=1", "--", "ffmpeg", "{output}"]]), ""),
        (FOREIGN, "is not sdisup's but '/usr/bin/ffmpeg -i x /srv/recordings/a.mp4', and nothing can be told of it; "
                  "mend it: systemctl edit sdi-record@3"),
        (Loaded("loaded", [["/bin/false"]]), "is not sdisup's but '/bin/false'"),
        (Loaded("loaded", []), "is not sdisup's but ''"),
        (Loaded("loaded", [["/usr/bin/ffmpeg", "x" * 99]]), f"but '/usr/bin/ffmpeg {'x' * 64}...', and"),
        (Loaded("loaded", [[*RUNNER, "--port=3", "ffmpeg", "{output}"]]), "is wrong: no FFmpeg command after --"),
        (Loaded("loaded", [[*RUNNER, "--port=5", "--", "ffmpeg", "{output}"]]), "is that of port 5"),
        (Loaded("bad-setting", []), "systemd does not take sdi-record@3.service "
                                                                        "(bad-setting); see: systemd-analyze verify"),
        (Loaded("masked", []), "is masked and does not start; systemctl unmask sdi-record@3.service"),
    ],
)  # fmt: skip
def test_what_a_unit_tells(loaded: Loaded, words: str) -> None:
    found = unit_problem(PORT, loaded)
    assert words in found and bool(found) == bool(words)


def test_the_start_of_a_restart_has_its_time_from_the_end_of_the_stop_on() -> None:
    now, states = [0.0], [["active"], ["deactivating"], ["inactive"], ["activating"], ["deactivating"], ["activating"]]
    stopped = _Stopped(lambda units: [*states.pop(0), "inactive"], lambda: now[0])
    seen = []
    for _ in range(6):
        now[0] += 1
        seen.append(stopped.since_s(["sdi-record@3.service", "sdi-record@4.service"]))
    # A start that fails stops its unit again, which is no longer the restart's stop.
    assert seen == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        ([ports.RECORDS, ports.BEGUN], 0),
        ([ports.RECORDS, ports.NO_SIGNAL], 3),
        ([ports.NO_SIGNAL, ports.WAITS], 1),
        ([ports.CANNOT_RECORD], 1),
        ([], 0),
    ],
)
def test_the_exit_code_of_starts(kinds: list[str], code: int) -> None:
    assert _report([Outcome(PORT, kind) for kind in kinds]) == code


@pytest.mark.parametrize("state", ["recording", "starting", "no-signal", "backoff", "stalled", "stopping"])
def test_a_port_that_is_started_already(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """A plain start finds it as it is wanted; a take cannot begin in it."""
    script = Script(monkeypatch, Script.claim)
    script.state = state
    (take,) = start_ports([PORT], 0.0, request=request)
    assert take.kind == ports.IS_STARTED
    assert take.text == f"port 3 (CAM3) is already started ({state}); stop it first: sdisup stop 3"
    assert script.calls == []
    (plain,) = start_ports([PORT], 0.0)
    assert plain.kind == (ports.RECORDED_ALREADY if state == "recording" else ports.RECORDS)
    assert plain.ok


@pytest.mark.parametrize("job", [other_starts, claimed_by_other, None])
def test_another_program_starts_it_at_the_same_moment(monkeypatch: pytest.MonkeyPatch, job: Any) -> None:
    """Whether it left its request first, started the unit first, or had its own claimed: one answer."""
    script = Script(monkeypatch, job or Script.claim)
    script.is_taken = job is None
    (outcome,) = start_ports([PORT], 0.0, request=request)
    assert outcome.kind == ports.STARTED_BY_ANOTHER
    assert not outcome.ok
    assert outcome.text == "port 3 (CAM3) was started by another program at the same moment, without this take"
    with pytest.raises(RuntimeError, match="started by another program"):
        raise outcome.as_error()
    assert script.left is None
    script.state, script.request_id = "stopped", ""
    (plain,) = start_ports([PORT], 0.0, request=lambda _: Request(request_id="mine"))
    assert plain.text == "port 3 (CAM3) was started by another program at the same moment"


@pytest.mark.parametrize(("state", "request_id"), [("no-signal", "theirs"), ("starting", "theirs"), ("no-signal", "")])
def test_no_request_is_left_in_a_port_that_another_program_is_starting(
    monkeypatch: pytest.MonkeyPatch, state: str, request_id: str
) -> None:
    """Their start waits for a signal, and ours for systemd: a later runner of theirs would take ours for its own."""

    def waiting(script: Script) -> str:
        script.state, script.request_id = state, request_id
        return WAITING

    script = Script(monkeypatch, waiting)
    (outcome,) = start_ports([PORT], 0.0, request=request)
    assert outcome.kind == ports.STARTED_BY_ANOTHER
    assert script.left is None


def test_an_earlier_take_is_no_other_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the new runner writes its status, the file still says the request of the one before."""
    script = Script(monkeypatch, starting)
    script.request_id = "earlier"
    (outcome,) = start_ports([PORT], 0.0, request=request)
    assert outcome.kind == ports.WAITS
    assert script.left is not None


def test_a_request_is_taken_back_when_the_start_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(script: Script) -> str:
        assert script.left
        raise KeyboardInterrupt

    script = Script(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        start_ports([PORT], 0.0, request=request)
    assert script.left is None


@pytest.mark.parametrize(("job", "kind"), [(starting, ports.WAITS), (lambda _: systemd.LOST, ports.REFUSED)])
def test_a_request_stays_for_a_runner_that_may_be_only_just_starting(
    monkeypatch: pytest.MonkeyPatch, job: Any, kind: str
) -> None:
    script = Script(monkeypatch, job)
    (outcome,) = start_ports([PORT], 0.0, request=request)
    assert outcome.kind == kind
    assert script.left is not None


def test_looking_takes_a_part_of_the_time_however_many_ports_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    Script(monkeypatch, starting)
    clock, rests = itertools.count(), list[float]()
    monkeypatch.setattr(ports, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("time.sleep", rests.append)
    start_ports([PORT], 9.0)
    assert rests and set(rests) == {4.0}


@pytest.mark.parametrize(
    ("result", "kind", "text"),
    [
        (DONE, ports.STOPPED, "port 3 (CAM3) is stopped"),
        (SystemdError("x", "", "org.freedesktop.systemd1.NoSuchUnit"), ports.STOPPED, "port 3 (CAM3) is stopped"),
        ("timeout", ports.NOT_STOPPED, "port 3 (CAM3) is not stopped: timeout"),
        (SystemdError("no", "try"), ports.REFUSED, "port 3 (CAM3): no (try)"),
    ],
)
def test_what_becomes_of_a_stop(monkeypatch: pytest.MonkeyPatch, result: Any, kind: str, text: str) -> None:
    Script(monkeypatch, lambda _: result)
    (outcome,) = stop_ports([PORT])
    assert (outcome.kind, outcome.text) == (kind, text)


def cut_now(script: Script) -> str:
    """The port stops, or starts."""
    if script.calls[-1][0] == "Stop":
        script.state = "stopped"
        return DONE
    return script.claim()


@pytest.mark.parametrize("state", ["stopped", "failed", "unknown"])
@pytest.mark.parametrize("cut", [ports.cut_ports, ports.cut_ports_now])
def test_a_port_that_does_not_run_is_not_cut_and_not_started(
    monkeypatch: pytest.MonkeyPatch, cut: Any, state: str
) -> None:
    script = Script(monkeypatch, cut_now)
    script.state = state
    (outcome,) = cut([PORT], "NEXT")
    assert (outcome.kind, outcome.detail) == (ports.NOT_CUT, f"it does not run ({state})")
    assert script.calls == []


@pytest.mark.parametrize("cut", [ports.cut_ports, ports.cut_ports_now])
def test_a_take_that_cannot_be_is_refused_before_anything_is_stopped(monkeypatch: pytest.MonkeyPatch, cut: Any) -> None:
    script = Script(monkeypatch, cut_now)
    script.state = "recording"
    with pytest.raises(UsageError, match="cannot be a take's name"):
        cut([PORT], "../NEXT")
    assert script.calls == []


def test_a_cut_by_a_stop_and_a_start_begins_the_take(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, cut_now)
    script.state, script.pid = "recording", 4711
    (outcome,) = ports.cut_ports_now([PORT], "NEXT")
    assert outcome.kind == ports.RECORDS
    assert [verb for verb, _ in script.calls if verb != "reset"] == ["Stop", "Start"]


def test_every_outcome_has_words_and_an_error() -> None:
    kinds = [value for name, value in vars(ports).items() if name.isupper() and isinstance(value, str)]
    assert len(kinds) == 17
    for kind in kinds:
        outcome = Outcome(PORT, kind, "why", PortStatus(port_index=3))
        assert "port 3" in outcome.text
        assert isinstance(outcome.as_error(), SdisupError)


@pytest.mark.parametrize("name", ["AccessDenied", "InteractiveAuthorizationRequired", "AuthFailed"])
def test_what_the_rights_do_not_allow_is_a_permission_error(name: str) -> None:
    error = explain(f"org.freedesktop.DBus.Error.{name}", "no", "sdi-record@3.service")
    assert isinstance(error, PermissionError)
    assert "run it as root" in str(error)
    assert not isinstance(explain("org.freedesktop.DBus.Error.NoReply", "no", "x"), PermissionError)


# ---- What a take asks for ----


class Builder:
    """What asks FFmpeg what it can do; here it can do all."""

    def port_for(self, config: RecorderConfig, _: int) -> Any:
        return type("Port", (), {"codec": str(config.codec), "container": config.container})

    def build_command(self, config: RecorderConfig, _: int) -> list[str]:
        return ["ffmpeg", str(config.container), "{output}"]


def asked(**values: Any) -> Request:
    return make_request(PORT, RecorderConfig(**values), Builder)  # type: ignore[arg-type]


def test_a_recording_path_may_be_a_file() -> None:
    found = asked(recording_path="/r/day/FINAL.mov", codec=CodecType.PRORES)
    assert (found.recording_path, found.name, found.container) == ("/r/day", "FINAL", "mov")
    assert found.argv == ["ffmpeg", "mov", "{output}"]
    directory = asked(recording_path="/r/day")
    assert (directory.recording_path, directory.name, directory.container) == ("/r/day", None, None)
    for words, absolute in (("day", "/r/day"), ("day/", "/r/day"), (".", "/r"), ("a/../day", "/r/day")):
        assert asked(recording_path=words).recording_path == absolute
    relative = asked(recording_path="day/FINAL.mp4")
    assert (relative.recording_path, relative.name, relative.container) == ("/r/day", "FINAL", "mp4")
    agreeing = asked(recording_path="/r/FINAL.mkv", name="FINAL", container="mkv")
    assert (agreeing.recording_path, agreeing.name, agreeing.container) == ("/r", "FINAL", "mkv")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"recording_path": "/etc/FINAL.mov"}, "'/etc/FINAL.mov' is not at or below /r"),
        ({"recording_path": "/r/../FINAL.mov"}, "is not at or below /r"),
        ({"recording_path": "../FINAL.mov"}, "'../FINAL.mov' is not at or below /r"),
        ({"recording_path": "../../etc"}, "'../../etc' is not at or below /r"),
        ({"recording_path": ""}, "'' is not at or below /r"),
        ({"recording_path": "day\0"}, "is not at or below /r"),
        ({"recording_path": "/r/-x.mov"}, "name: '-x' is not a letter or digit"),
        ({"recording_path": "/r/.mov"}, "is not at or below /r"),
        ({"recording_path": "/r/A.mov", "name": "B"}, "asks for the name 'A', and name for 'B'"),
        ({"recording_path": "/r/A.mov", "container": "mkv"}, "asks for the container 'mov', and container for 'mkv'"),
    ],
)
def test_a_file_that_cannot_be_is_refused(values: dict[str, Any], problem: str) -> None:
    if values == {"recording_path": "/r/.mov"}:
        # No ending, but a name: a directory, and made if it is missing.
        assert not is_file_path("/r/.mov")
        return
    with pytest.raises(ConfigError) as caught:
        asked(**values)
    assert problem in str(caught.value)


def test_a_directory_of_such_a_name_is_a_directory(tmp_path: Any) -> None:
    (tmp_path / "x.mov").mkdir()
    assert not is_file_path(str(tmp_path / "x.mov"))
    assert is_file_path(str(tmp_path / "y.mov"))


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermissionError, match="run it as root"):
        asked(recording_path="/r/A.mov")
    assert asked(take="final", codec=None).take == "final"
    monkeypatch.setattr("sdisup.contract.requests.leave_request", denied)
    with pytest.raises(PermissionError, match="run it as root"):
        takes.leave_take_request(PORT, Request())
    assert isinstance(RootError("x"), SdisupError)


def denied(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


# ---- Python ----


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(api, "load_applied", lambda: Applied({3: PORT}, []))
    return type("Settings", (), {"port_count": 8, "ports": {3: None}, "ffmpeg": "ffmpeg"})()


@pytest.mark.parametrize("index", [-1, 8, True, "3", None, 3.0])
def test_an_index_outside_the_range(settings: Any, index: Any) -> None:
    words = f"^Invalid port index {index}. Valid range: 0-7$"
    with pytest.raises(ValueError, match=words):
        PortRecorder(index, settings)
    with pytest.raises(ValueError, match=words):
        aio.PortRecorder(index, settings)
    with pytest.raises(ValueError, match=words):
        RecorderManager(settings).start_recording(index)
    with pytest.raises(ValueError, match=words):
        asyncio.run(aio.RecorderManager(settings).stop_recording(index))


def test_the_two_classes_and_their_coroutines_are_one(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    script = Script(monkeypatch, Script.claim)
    monkeypatch.setattr(api, "full_statuses", lambda asked, *_: [script.status() for _ in asked])

    async def with_coroutines() -> None:
        recorder = aio.PortRecorder(3, settings)
        assert (await recorder.start()).state == "recording"
        assert recorder.get_status().is_recording
        with pytest.raises(RuntimeError, match=r"is already started \(recording\)"):
            await recorder.start()
        manager = aio.RecorderManager(settings)
        with pytest.raises(RecordingError):
            await manager.start_recording(3)
        assert manager.get_all_status()[0].is_recording
        script.job = stopping
        await recorder.stop()
        await manager.stop_recording(3)
        script.job = lambda script: script.claim("no-signal")
        assert (await manager.start_recording(3)).state == "no-signal"

    asyncio.run(with_coroutines())
    plain = PortRecorder(3, settings)
    with pytest.raises(RecordingError):
        plain.start()
    script.job = stopping
    plain.stop()
    script.job = Script.claim
    assert plain.start().current_file == "/r/a.mp4"


def test_the_coroutines_are_those_of_the_plain_classes() -> None:
    for name in ("RecorderManager", "PortRecorder"):
        plain, of_aio = getattr(api, name), getattr(aio, name)
        coroutines = [key for key, value in vars(of_aio).items() if asyncio.iscoroutinefunction(value)]
        acts = (
            "start",
            "stop",
            "cut",
            "start_recording",
            "start_recordings",
            "stop_recording",
            "cut_recording",
            "export",
        )
        assert sorted(coroutines) == sorted(key for key in vars(plain) if key in acts)


def test_a_start_that_is_cancelled_leaves_no_request(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    async def cancelled() -> None:
        entered, goes_on = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def job(script: Script) -> str:
            loop.call_soon_threadsafe(entered.set)
            asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result(10)
            return other_starts(script)

        script = Script(monkeypatch, job)
        start = asyncio.create_task(aio.PortRecorder(3, settings).start())
        await asyncio.wait_for(entered.wait(), 10)
        assert script.left is not None
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        goes_on.set()
        while script.left is not None:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(cancelled(), 20))


def test_a_stop_after_a_cancelled_start_is_the_last_word(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """The thread of the start is slow, and gives systemd its job after that of the stop."""
    stopped = threading.Event()

    def job(script: Script) -> str:
        if script.calls[-1][0] == "Stop":
            script.state = "stopped"
            stopped.set()
            return DONE
        assert stopped.wait(10)
        return script.claim()

    async def stop_after_cancelled_start() -> None:
        recorder = aio.PortRecorder(3, settings)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(recorder.start(), 0.05)
        await recorder.stop()

    script = Script(monkeypatch, job)
    asyncio.run(asyncio.wait_for(stop_after_cancelled_start(), 20))
    assert [verb for verb, _ in script.calls if verb == "Stop"] == ["Stop", "Stop"]
    assert script.state == "stopped"


def test_starts_that_wait_do_not_hold_up_a_stop(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """However many ports wait for their signal, and however few threads asyncio has of its own."""
    stopped = threading.Event()

    def run_jobs(verb: str, units: list[str], _: float) -> dict[str, str]:
        if verb == "Stop":
            stopped.set()
        return dict.fromkeys(units, DONE if stopped.wait(10) else "timeout")

    async def many() -> None:
        starts = [asyncio.create_task(aio.PortRecorder(3, settings).start()) for _ in range(40)]
        await asyncio.sleep(0)
        await aio.PortRecorder(3, settings).stop()
        await asyncio.gather(*starts, return_exceptions=True)

    monkeypatch.setattr(Script(monkeypatch, stopping), "run_jobs", run_jobs)
    asyncio.run(asyncio.wait_for(many(), 20))
