"""systemd's calendar expressions (systemd.time(7)) as moments. `systemd-analyze calendar` reads all of them at once.

It is asked in UTC for expressions without their time zone, so that what it answers are local times, of which this
module makes moments: systemd itself leaves a local time out that a change to summer time skips, and here it is the next
one that exists. A local time that comes twice is its first one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

from sdisup.contract.programs import Program
from sdisup.contract.records import Record
from sdisup.contract.schedules import Entry, Schedule
from sdisup.control.schedules import Slot, scheduled
from sdisup.errors import ConfigError, SdisupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sdisup.config.settings import Settings

ITERATIONS = 16
ITERATIONS_MOST = 4096
STARTS_MOST = 50_000
"""So many starts of one expression are looked at: more than a start each minute in a month."""
TIMEOUT_S = 60.0
LIMIT_BYTES = 256 << 20
LOCAL_ZONE_PATH = "/etc/localtime"
_TIME = r"[A-Z][a-z]{2} (\d+-\d\d-\d\d \d\d:\d\d:\d\d) UTC"
# systemd 252 counts `Iter. #2`, systemd 257 `Iteration #2`.
_ELAPSE = re.compile(rf"^ *(?:Next elapse|Iter[a-z.]* #\d+): {_TIME}$", re.MULTILINE)
_ORIGINAL = re.compile(r"^ *Original form: (.*)$", re.MULTILINE)
_NORMALIZED = re.compile(r"^ *Normalized form: (.*)$", re.MULTILINE)

Ask = Callable[[Sequence[str]], str]


class Calendar(Record):
    """A calendar expression in systemd's normal form, without its time zone; that is empty for the machine's own."""

    expression: str
    zone: str


def ask_systemd(arguments: Sequence[str], *, with_stderr: bool = False) -> str:
    """What `systemd-analyze calendar` says, in UTC and English. Raises SdisupError."""
    command = ["env", "TZ=UTC", "LC_ALL=C", "SYSTEMD_COLORS=0", "systemd-analyze", "calendar", *arguments]
    try:
        answer = Program(command, with_stderr=with_stderr).answer(LIMIT_BYTES, TIMEOUT_S)
    except OSError as error:
        raise SdisupError(
            f"systemd-analyze cannot be run: {error.strerror}", "it is in Debian's package systemd"
        ) from error
    if answer is None:
        raise SdisupError(f"systemd-analyze calendar has not answered for {TIMEOUT_S:g} s")
    text, code = answer
    if code not in (0, 1):
        raise SdisupError(f"systemd-analyze calendar ended with {code}", "it is in Debian's package systemd")
    return text.decode("utf-8", "replace")


def read_calendars(texts: Iterable[str], ask: Ask = ask_systemd) -> tuple[dict[str, Calendar], dict[str, str]]:
    """What systemd makes of each expression, and its words where it refuses one. Raises SdisupError."""
    wanted = list(dict.fromkeys(texts))
    if not wanted:
        return {}, {}
    found: dict[str, Calendar] = {}
    for block in _blocks(ask(["--iterations=1", "--", *wanted])):
        normal = _NORMALIZED.search(block)
        original = _ORIGINAL.search(block) or normal
        if original and normal:
            found[original[1]] = _without_zone(normal[1])
    refused = [text for text in wanted if text not in found]
    return found, {text: _refusal(text) for text in refused}


def refusals(texts: Sequence[str]) -> Mapping[str, str]:
    """systemd's words for each expression that it refuses. Raises SdisupError."""
    return read_calendars(texts)[1]


def schedules_of(settings: Settings) -> dict[int, Schedule]:
    """The ports' schedules, as apply leaves them. Raises SdisupError, and ConfigError for what systemd refuses."""
    ports = settings.ports.values()
    found, refused = read_calendars(entry.start for port in ports for entry in port.schedule)
    if refused:
        raise ConfigError([f"{settings.path}: schedule: {words}" for words in refused.values()])
    return {
        port.index: Schedule(
            tuple(
                Entry(entry.start, **found[entry.start].as_dict(), duration_s=entry.duration_s, take=entry.take)
                for entry in port.schedule
            ),
            port.pre_roll_s,
            port.post_roll_s,
        )
        for port in ports
    }


def slots_of(schedules: Mapping[int, Schedule], since: float, until: float) -> dict[int, list[Slot]]:
    """By port: the slots that are not over at `since` and begin until `until`, and the next one of each entry, in the
    order of their starts. Raises SdisupError."""
    entries = [(index, schedule, entry) for index, schedule in schedules.items() for entry in schedule.entries]
    lead_s = max((schedule.pre_roll_s for _, schedule, _ in entries), default=0.0)
    length_s = max((entry.duration_s + schedule.post_roll_s for _, schedule, entry in entries), default=0.0)
    calendars = {Calendar(entry.expression, entry.zone) for _, _, entry in entries}
    found = starts(calendars, since - length_s, until + lead_s)
    slots: dict[int, dict[str, Slot]] = {index: {} for index in schedules}
    for index, schedule, entry in entries:
        for start in found[Calendar(entry.expression, entry.zone)]:
            slot = scheduled(start, entry.duration_s, entry.take, schedule.pre_roll_s, schedule.post_roll_s)
            if slot.until > since:
                slots[index].setdefault(slot.request_id, slot)
    return {index: sorted(own.values(), key=lambda slot: slot.start) for index, own in slots.items()}


def _refusal(text: str) -> str:
    """systemd's own words."""
    return ask_systemd(["--", text], with_stderr=True).strip().replace("\n", "; ") or "systemd does not take it"


def _blocks(text: str) -> list[str]:
    return [block for block in re.split(r"\n\s*\n", text) if _NORMALIZED.search(block)]


def _without_zone(normal: str) -> Calendar:
    expression, _, last = normal.rpartition(" ")
    # The time of day is always written out, and no time zone has a colon in its name.
    return Calendar(normal, "") if ":" in last else Calendar(expression, last)


def starts(
    calendars: Collection[Calendar], since: float, until: float, ask: Ask = ask_systemd
) -> dict[Calendar, list[float]]:
    """The starts of each from `since` to `until`, and the next one after it, as Unix times. Raises SdisupError."""
    found: dict[Calendar, list[float]] = {calendar: [] for calendar in calendars}
    for zone in {calendar.zone for calendar in calendars}:
        there = zone_of(zone)
        # An hour that comes twice must not hide what comes after it.
        base = datetime.fromtimestamp(since, there).replace(tzinfo=None, microsecond=0) - timedelta(hours=3)
        waiting, iterations = [calendar for calendar in found if calendar.zone == zone], ITERATIONS
        while waiting:
            following = []
            for calendar, local in zip(waiting, _ask(waiting, base, iterations, ask), strict=True):
                found[calendar] = sorted({*found[calendar], *(moment(time, there) for time in local)})
                is_whole = len(local) < iterations or found[calendar][-1] > until or len(found[calendar]) > STARTS_MOST
                following += [] if is_whole else [(local[-1], calendar)]
            waiting = [calendar for _, calendar in following]
            # What some have already is asked for again, so that one question is enough for all.
            base = min((last for last, _ in following), default=base)
            iterations = min(iterations * 8, ITERATIONS_MOST)
    return {calendar: _from_to(moments, since, until) for calendar, moments in found.items()}


def _from_to(moments: Sequence[float], since: float, until: float) -> list[float]:
    following = [time for time in moments if time > until][:1]
    return [time for time in moments if since <= time <= until] + following


def _ask(calendars: Sequence[Calendar], base: datetime, iterations: int, ask: Ask) -> list[list[datetime]]:
    """The next local times of each after `base`."""
    expressions = (calendar.expression for calendar in calendars)
    text = ask([f"--base-time={base:%Y-%m-%d %H:%M:%S}", f"--iterations={iterations}", "--", *expressions])
    blocks = _blocks(text)
    if len(blocks) != len(calendars):
        raise SdisupError(f"systemd-analyze calendar answered {len(blocks)} of {len(calendars)} expressions")
    return [[datetime.fromisoformat(time) for time in _ELAPSE.findall(block)] for block in blocks]


def zone_of(name: str) -> tzinfo:
    """A time zone; the machine's own without a name. Raises SdisupError."""
    from zoneinfo import ZoneInfo

    try:
        if name:
            return UTC if name == "UTC" else ZoneInfo(name)
        with open(LOCAL_ZONE_PATH, "rb") as file:
            return ZoneInfo.from_file(file, "local")
    except FileNotFoundError:
        # Then it is UTC (localtime(5)).
        return UTC
    except (OSError, ValueError, KeyError) as error:
        raise SdisupError(f"the time zone {name or LOCAL_ZONE_PATH} cannot be read: {error}") from error


def moment(local: datetime, zone: tzinfo) -> float:
    """The Unix time of a local time: of one that comes twice the first, of one that is skipped that of the next one
    that exists."""
    first, second = (local.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
    if first <= second:
        return first
    # PEP 495: in a gap the offset before it gives the later moment, the one behind it the earlier one.
    low, high = second, first
    before = _offset(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(middle, zone) == before else (low, middle)
    return high


def _offset(time: float, zone: tzinfo) -> timedelta | None:
    return datetime.fromtimestamp(time, zone).utcoffset()
