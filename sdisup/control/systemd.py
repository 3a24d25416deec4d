"""Makes systemd do it: calls its manager over D-Bus through pydbus. What only asks is control/bus.py's too.

Facts on which it relies (FACTS 4): When dbus-daemon dies, pydbus.SystemBus() makes the process exit with SIGTERM, and
its shared connection stays dead. A connection of its own avoids both, costs 3 ms, and may be opened in any thread. The
default time-out is infinite. bus.get() of a unit introspects the unit, which is too slow for a loop. A unit that does
not exist has the ActiveState `inactive`; only its LoadState tells.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from sdisup.contract.records import Record
from sdisup.contract.trace import trace
from sdisup.control.bus import (
    BUS_ADDRESS,
    CALL_TIMEOUT_S,
    MANAGER,
    NO_PERMISSION,
    SYSTEMD,
    SystemdError,
    UnitState,
    explain,
    unit_states,
)

LOOK_S = 0.2
"""The time between two looks at units that are restarted."""
NEVER_US = 1 << 63
TIMER_ACCURACY_US = 100_000
WAITING = "waiting"
"""The result that run_jobs gives to a job that is not over at its time-out."""
DONE = "done"
"""systemd's result of a job that succeeded; others are `failed`, `timeout`, `assert`, …"""


class Loaded(Record):
    """A unit as systemd has read it: its LoadState, and the argument list of each ExecStart=."""

    state: str
    commands: list[list[str]]


def _connect(gio: Any, bus_class: Any, timeout_s: float) -> Any:
    """Connect as pydbus.connect() does, with a time-out: a bus that hangs would hang its clients in the handshake."""
    flags = gio.DBusConnectionFlags
    cancellable = gio.Cancellable()
    timer = threading.Timer(timeout_s, cancellable.cancel)
    timer.daemon = True
    timer.start()
    try:
        address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", BUS_ADDRESS)
        connection = gio.DBusConnection.new_for_address_sync(
            address, flags.AUTHENTICATION_CLIENT | flags.MESSAGE_BUS_CONNECTION, None, cancellable
        )
    finally:
        timer.cancel()
    return bus_class(connection)


class Systemd:
    """A connection to systemd, for one task in one thread; use it in a `with` statement."""

    def __init__(self, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Raises SystemdError when there is no D-Bus, no systemd, or no pydbus."""
        self._timeout_s = timeout_s
        try:
            from gi.repository import Gio, GLib
            from pydbus.bus import Bus
        except ImportError as error:
            raise SystemdError(
                f"systemd cannot be reached: {error}",
                "install Debian's python3-pydbus and python3-gi for the Python that runs this",
            ) from error
        self._glib = GLib
        self._remote_error_name: Callable[[Exception], str | None] = Gio.dbus_error_get_remote_error
        # Signals arrive in the main context of the thread that subscribes. This connection has a context of its own, so
        # that any thread may use it.
        self._context = GLib.MainContext.new()
        self._context.push_thread_default()
        try:
            self._bus = self._traced("connect", "systemd", lambda: _connect(Gio, Bus, timeout_s))
        except SystemdError:
            self._context.pop_thread_default()
            raise
        try:
            introspect = f"{MANAGER} Introspect()"
            self._manager = self._traced(
                introspect, "systemd", lambda: self._bus.get(".systemd1", timeout=int(timeout_s))
            )
        except SystemdError:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Systemd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._bus.con.close_sync(None)
        except self._glib.Error:
            # The connection is closed already, since the bus went away.
            return
        finally:
            self._context.pop_thread_default()

    def version(self) -> int:
        """systemd's major version, such as 257."""
        text = self._property(MANAGER, "Manager", "Version")
        digits = str(text).lstrip("v")[:3]
        return int(digits) if digits.isdigit() else 0

    def units(self, pattern: str) -> dict[str, UnitState]:
        """The units in systemd's memory whose names match a glob pattern, by name."""
        return dict(unit_states(self._call("units", "ListUnitsByPatterns", [], [pattern])))

    def exit_statuses(self, units: Sequence[UnitState]) -> list[int]:
        """ExecMainStatus of each: how a service's last process exited. From 200 on: systemd could not start it."""
        return [int(self._property(unit.path, "Service", "ExecMainStatus")) for unit in units]

    def load(self, units: Sequence[str]) -> list[UnitState]:
        """Units in the order in which they are asked for; systemd reads those that it has not in memory."""
        listed = self._call("units", "ListUnitsByNames", list(units))
        if len(listed) != len(units):
            raise SystemdError(f"systemd knows {len(listed)} of {len(units)} units")
        return [state for _, state in unit_states(listed)]

    def commands(self, unit: UnitState) -> list[list[str]]:
        """The argument list of each ExecStart= as systemd has read it, with all drop-ins."""
        return [list(command[1]) for command in self._property(unit.path, "Service", "ExecStart")]

    def loaded(self, unit: str) -> Loaded:
        """The unit as systemd has read it, with all its drop-ins. Raises SystemdError."""
        (state,) = self.load([unit])
        return Loaded(state.load, self.commands(state) if state.load == "loaded" else [])

    def unit_path(self) -> list[str]:
        """The directories from which systemd reads units."""
        return list(self._property(MANAGER, "Manager", "UnitPath"))

    def _property(self, path: str, interface: str, name: str) -> Any:
        """A property of a unit or of the manager, without the introspection of bus.get()."""
        arguments = (f"org.freedesktop.systemd1.{interface}", name)
        call = ("org.freedesktop.systemd1", path, "org.freedesktop.DBus.Properties", "Get")
        variant, timeout_ms = self._glib.Variant("(ss)", arguments), round(self._timeout_s * 1000)
        return self._traced(
            f"{path} Get{arguments}",
            "systemd",
            lambda: self._bus.con.call_sync(*call, variant, None, 0, timeout_ms, None).unpack()[0],
        )

    def run_jobs(
        self, verb: str, units: Iterable[str], timeout_s: float, start_s: float | None = None
    ) -> dict[str, str | SystemdError]:
        """Queue a job for each unit, all at once, and wait for them. Returns each unit's result or error.

        The result is DONE, another of systemd's job results, or WAITING after `timeout_s` seconds; of restarts also
        `start_s` seconds after the last stop.
        """
        units = list(units)
        if not units:
            return {}
        removed: dict[str, str] = {}

        def on_removed(_id: int, job: str, _unit: str, result: str) -> None:
            removed[job] = result

        # Before the first job is queued, since a quick job may be over before the next call.
        self._subscribe()
        subscription = self._manager.JobRemoved.connect(on_removed)
        try:
            answers = self._queue_jobs(f"{verb}Unit", units)
            results: dict[str, str | SystemdError] = {
                unit: answer for unit, answer in answers.items() if isinstance(answer, SystemdError)
            }
            jobs = {unit: answer for unit, answer in answers.items() if not isinstance(answer, SystemdError)}
            stopped = _Stopped(self._active_states)

            def is_over() -> bool:
                left = [unit for unit, job in jobs.items() if job not in removed]
                # A bus that goes away takes the signals with it: nobody would tell that a job is over.
                if not left or self._is_closed():
                    return True
                return start_s is not None and stopped.since_s(left) > start_s

            self._iterate(is_over, timeout_s)
            trace("D-Bus %s JobRemoved: %r", MANAGER, {unit: removed.get(job, WAITING) for unit, job in jobs.items()})
        finally:
            subscription.disconnect()
        lost = LOST if self._is_closed() else WAITING
        results.update({unit: removed.get(job, lost) for unit, job in jobs.items()})
        return results

    def _queue_jobs(self, method: str, units: Sequence[str]) -> dict[str, str | SystemdError]:
        """Queue a job for each unit; returns the job's path, or why systemd refused it.

        All calls go out before the first answer: else each one would wait until systemd has begun with the jobs before
        it, and the last unit of many would start late.
        """
        answers: dict[str, str | SystemdError] = {}
        began = time.monotonic()

        def on_answer(connection: Any, result: Any, unit: str) -> None:
            call, after_s = f"{MANAGER} {method}({unit!r}, 'replace')", time.monotonic() - began
            try:
                answers[unit] = connection.call_finish(result).unpack()[0]
                trace("D-Bus %s: %.200r after %.3f s", call, answers[unit], after_s)
            except self._glib.Error as error:
                trace("D-Bus %s: %s after %.3f s", call, error, after_s)
                answers[unit] = self._explain(error, unit)

        for unit in units:
            call = (SYSTEMD, MANAGER, f"{SYSTEMD}.Manager", method, self._glib.Variant("(ss)", (unit, "replace")))
            self._bus.con.call(*call, None, 0, round(self._timeout_s * 1000), None, on_answer, unit)
        # The calls have a limit of their own, which a bus that is closed cuts short.
        self._iterate(lambda: len(answers) == len(units), 2 * self._timeout_s)
        return {unit: answers.get(unit, LOST) for unit in units}

    def _is_closed(self) -> bool:
        return bool(self._bus.con.is_closed())

    def _active_states(self, units: Sequence[str]) -> list[str]:
        try:
            return [unit[3] for unit in self._call("units", "ListUnitsByNames", list(units))]
        except SystemdError:
            # Nothing shows that they have stopped; the next look may.
            return ["deactivating"]

    def _subscribe(self) -> None:
        try:
            self._call("systemd", "Subscribe")
        except SystemdError as error:
            # This client subscribed before; or a former client did whose name this one has since the bus was restarted.
            if not error.name.endswith(".AlreadySubscribed"):
                raise

    def reset_failed(self, unit: str) -> None:
        """Forget a unit's failure and its start limit, if it is in memory and this user may (polkit has an own verb).

        Who may only start and stop starts a failed unit all the same, but for one that its start limit holds back.
        """
        try:
            self._call(unit, "ResetFailedUnit", unit)
        except SystemdError as error:
            if not error.name.endswith((".NoSuchUnit", *NO_PERMISSION)):
                raise

    def reset_all(self, units: Iterable[str]) -> dict[str, SystemdError]:
        """The same for several units; what keeps one from it keeps no other. Returns the errors."""
        errors: dict[str, SystemdError] = {}
        for unit in units:
            try:
                self.reset_failed(unit)
            except SystemdError as error:
                errors[unit] = error
        return errors

    def timers(self, units: Mapping[str, UnitState]) -> dict[str, float | None]:
        """When each of these timers elapses next by the clock (Unix time); None for one that does not wait."""
        found: dict[str, float | None] = {}
        for name, unit in units.items():
            is_waiting = unit.sub == "waiting"
            at_us = int(self._property(unit.path, "Timer", "NextElapseUSecRealtime")) if is_waiting else 0
            found[name] = at_us / 1e6 if 0 < at_us < NEVER_US else None
        return found

    def start_timer(self, name: str, description: str, calendar: str) -> None:
        """Make a transient timer, which starts the service of its name at one time of the calendar.

        Raises SystemdError, `…UnitExists` where there is one.
        """
        variant = self._glib.Variant
        properties = [
            ("Description", variant("s", description)),
            ("TimersCalendar", variant("a(ss)", [("OnCalendar", calendar)])),
            ("AccuracyUSec", variant("t", TIMER_ACCURACY_US)),
            ("RemainAfterElapse", variant("b", False)),
        ]
        self._call(name, "StartTransientUnit", name, "replace", properties, [])

    def reload(self) -> None:
        """Make systemd read all unit files again (`systemctl daemon-reload`), which takes 124 ms and more."""
        self._call("systemd", "Reload")

    def set_enabled(self, enable: Iterable[str], disable: Iterable[str]) -> None:
        """Enable and disable units for boot. The caller has to call reload() after it."""
        wanted, unwanted = sorted(enable), sorted(disable)
        if wanted:
            self._call(wanted[0], "EnableUnitFiles", wanted, False, True)
        if unwanted:
            self._call(unwanted[0], "DisableUnitFiles", unwanted, False)

    def _iterate(self, done: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        timer = self._glib.timeout_source_new(50)
        timer.set_callback(lambda *_: True)
        timer.attach(self._context)
        try:
            while not done() and time.monotonic() < deadline:
                self._context.iteration(True)
        finally:
            timer.destroy()

    def _call(self, subject: str, method: str, *arguments: Any) -> Any:
        call = f"{MANAGER} {method}({', '.join(map(repr, arguments))})"
        return self._traced(call, subject, lambda: getattr(self._manager, method)(*arguments, timeout=self._timeout_s))

    def _traced(self, call: str, subject: str, make: Callable[[], Any]) -> Any:
        """Make a call, trace it and return its result. Raises SystemdError in the operator's words."""
        began = time.monotonic()
        try:
            result = make()
        except (self._glib.Error, KeyError) as error:
            trace("D-Bus %s: %s after %.3f s", call, error, time.monotonic() - began)
            raise self._explain(error, subject) from error
        trace("D-Bus %s: %.200r after %.3f s", call, result, time.monotonic() - began)
        return result

    def _explain(self, error: Exception, subject: str) -> SystemdError:
        name = ""
        if isinstance(error, self._glib.Error):
            name = self._remote_error_name(error) or ""
        text = getattr(error, "message", str(error))
        return explain(name, text, subject)


class _Stopped:
    """Finds out how long the stops of restarts have been over; `states` gives the ActiveState of units."""

    def __init__(
        self, states: Callable[[Sequence[str]], list[str]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._states, self._clock = states, clock
        self._since: float | None = None
        self._look_at = -math.inf

    def since_s(self, units: Sequence[str]) -> float:
        """For how long none of the units has been stopping; 0 while one is."""
        now = self._clock()
        if self._since is None and now >= self._look_at:
            self._look_at = now + LOOK_S
            # A unit is active until systemd begins with its stop.
            if not {"active", "reloading", "deactivating"} & set(self._states(units)):
                self._since = now
        return 0.0 if self._since is None else now - self._since


LOST = SystemdError("D-Bus went away before systemd said how it ended", "see: sdisup status")
"""The result that run_jobs gives to a job that may not be over, since the bus went away."""
