"""All commands but the quick one, `sdisup status`: their arguments, printing, exit codes. Data on stdout, remarks on
stderr."""

from __future__ import annotations

import argparse
import functools
import gc
import os
import sys
from collections.abc import Callable, Sequence

from sdisup import __version__
from sdisup.cli.status import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_NOT_RECORDING,
    PORTS_HELP,
    remark,
    select,
    selected,
    status,
)
from sdisup.contract.applied import AppliedPort, load_applied
from sdisup.contract.files import CONFIGURATION_PATH, monotonic
from sdisup.errors import ConfigError, SdisupError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sdisup.cli.accounts import PortAccount
    from sdisup.config.settings import Settings
    from sdisup.contract.protections import Protection
    from sdisup.contract.requests import Request
    from sdisup.control.ports import Outcome
    from sdisup.ledger.accounts import Window

DEBUG_HELP = "show each file, program and D-Bus call on stderr, with its time"


def _report(outcomes: Sequence[Outcome]) -> int:
    from sdisup.control.ports import NO_SIGNAL

    for outcome in outcomes:
        if outcome.ok:
            print(outcome.text)
        else:
            remark(outcome.text)
    failed = [outcome for outcome in outcomes if not outcome.ok]
    if all(outcome.kind == NO_SIGNAL for outcome in failed):
        return EXIT_NOT_RECORDING if failed else EXIT_DONE
    return EXIT_FAILED


def _start(arguments: argparse.Namespace) -> int:
    from sdisup.control.ports import start_ports

    if any(getattr(arguments, name, None) is not None for name in ("at", "until", "length")):
        return _start_at_times(arguments)
    if getattr(arguments, "all_or_none", False):
        from sdisup.control.gang import start_all_or_none

        if arguments.no_wait:
            raise UsageError(
                "--all-or-none and --no-wait together", "who waits for nothing cannot tell whether all record"
            )
        return _report(start_all_or_none(selected(arguments), arguments.wait, _take_request(arguments)))
    return _report(
        start_ports(
            selected(arguments),
            None if arguments.no_wait else arguments.wait,
            restart=arguments.command == "restart",
            request=_take_request(arguments),
            unlock=getattr(arguments, "unlock", False),
        )
    )


def _start_at_times(arguments: argparse.Namespace) -> int:
    import time

    from sdisup.cli.words import parse_clock
    from sdisup.config.spans import seconds_of
    from sdisup.control.orders import Asked, start_at_times

    if arguments.all_or_none:
        raise UsageError("--all-or-none and a time together", "start the ports now, or without --all-or-none")
    now = time.time()
    at = None if arguments.at is None else parse_clock(arguments.at, now)
    # `--at 23:00 --until 01:00` is of two days.
    until = None if arguments.until is None else parse_clock(arguments.until, max(now, at or now))
    try:
        for_s = None if arguments.length is None else seconds_of(arguments.length)
    except ValueError as error:
        raise UsageError(f"--for: {error}") from None
    wait_s = None if arguments.no_wait else arguments.wait
    return _report(start_at_times(selected(arguments), wait_s, Asked(at, until, for_s), _take_request(arguments)))


def _hold(arguments: argparse.Namespace) -> int:
    from sdisup.control.orders import hold_ports

    is_done = True
    for port, text, is_as_asked in hold_ports(selected(arguments), release=arguments.command == "release"):
        is_done = is_done and is_as_asked
        (print if is_as_asked else remark)(f"{port.label} {text}")
    return EXIT_DONE if is_done else EXIT_FAILED


def _cut(arguments: argparse.Namespace) -> int:
    from sdisup.control.ports import RECORDS, cut_ports, cut_ports_now

    if not arguments.now:
        return _report(cut_ports(selected(arguments), arguments.take))
    began = monotonic()
    outcomes = cut_ports_now(selected(arguments), arguments.take, unlock=arguments.unlock)
    for outcome in outcomes:
        if outcome.kind == RECORDS:
            seconds = monotonic() - began
            print(f"{outcome.port.label}: at most {seconds:.1f} s are missing; see: sdisup gaps {outcome.port.index}")
    return _report(outcomes)


def _take_request(arguments: argparse.Namespace) -> Callable[[AppliedPort], Request] | None:
    """A function that makes a port's request for a take; None for a plain start or restart."""
    asked = {name: getattr(arguments, name, None) for name in ("take", "codec", "path")}
    if not any(asked.values()):
        return None
    from sdisup.config.settings import Settings
    from sdisup.control.api import FFmpegCommandBuilder, RecorderConfig, codec_type
    from sdisup.control.takes import make_request

    def builder() -> FFmpegCommandBuilder:
        return FFmpegCommandBuilder(Settings.load())

    def request(port: AppliedPort) -> Request:
        codec = codec_type(asked["codec"] or port.codec)
        return make_request(port, RecorderConfig(codec, asked["path"], take=asked["take"]), builder)

    return request


def _enable(arguments: argparse.Namespace) -> int:
    from sdisup.control.apply import one_at_a_time
    from sdisup.control.boot import set_record_at_boot
    from sdisup.control.ports import start_ports

    value = arguments.command == "enable"
    with one_at_a_time():
        change = set_record_at_boot(selected(arguments), value)
    for port in change.done:
        print(f"{port.label} {'records' if value else 'does not record'} at boot")
    for text in change.remarks:
        remark(text)
    for error in change.errors:
        remark(f"sdisup: {error}")
    code = _report(start_ports(change.due, 10.0))
    return EXIT_FAILED if change.errors else code


def _logs(arguments: argparse.Namespace) -> int:
    """journalctl with the right filters takes this process's place: its options, its pager, its exit code."""
    units = [f"--unit={port.unit}" for port in selected(arguments)] if arguments.ports else []
    command = ["journalctl", *(units or ["--unit=sdi-record@*.service"])]
    for option in ("follow", "boot"):
        command += [f"--{option}"] if getattr(arguments, option) else []
    for option in ("lines", "since", "until", "priority"):
        value = getattr(arguments, option)
        command += [f"--{option}={value}"] if value is not None else []
    from sdisup.contract.programs import become

    sys.stdout.flush()
    try:
        become(command)
    except OSError as error:
        raise SdisupError(f"journalctl cannot be run: {error.strerror}") from error


def _account(arguments: argparse.Namespace) -> int:
    """`gaps` and `recordings`: a table or JSON from the ledgers, and what goes on just now."""
    from sdisup.cli import accounts as table
    from sdisup.ledger.present import accounts

    # Ledger entries hold no reference cycles; the search for cycles would take half of the time.
    gc.disable()
    is_gaps = arguments.command == "gaps"
    window = _window(arguments)
    found, remarks = accounts("gap" if is_gaps else "file", _with_ledgers(arguments.ports), window)
    remarks += [] if is_gaps else _mark_protected(found)
    for text in remarks:
        remark(text)
    # A ledger that cannot be read does not prove that nothing is missing. The exit code is set before the output, since
    # a pipe's reader may close it early.
    is_whole = not remarks and not any(account.gaps for _, _, account in found)
    code = EXIT_DONE if is_whole or not getattr(arguments, "fail_if_any", False) else EXIT_FAILED
    arguments.code = code
    if arguments.json:
        lines = table.document_lines(arguments.command, found)
    else:
        lines = table.gap_lines(found, each=window.with_short) if is_gaps else table.file_lines(found)
        lines = table.with_sums(lines, found)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return code


def _mark_protected(found: Sequence[PortAccount]) -> list[str]:
    """Note in the rows of files why they are protected; returns what cannot be read."""
    from sdisup.contract.files import Unreadable
    from sdisup.contract.protections import Protections, load_protections

    try:
        known = load_protections()
    except Unreadable as error:
        return [str(error)]
    protections = Protections(known)
    for port_index, _, account in found if known else ():
        for row in account.rows:
            start = row.start or row.not_before
            one = protections.of(port_index, row.path or "", account.takes(row), start, row.end_or_open())
            row.protected = one.reason or f"by {one.by or 'somebody'}" if one and not row.deleted else ""
    return []


def _protect(arguments: argparse.Namespace) -> int:
    from sdisup.cli.retention import protection_lines
    from sdisup.control import protect as protecting

    is_new = arguments.command == "protect"
    asked = _asked_protections(arguments)
    if is_new:
        found = protecting.protect(asked, arguments.reason or "")
        sys.stdout.writelines(f"{line}\n" for line in protection_lines(protecting.covered(found)))
    else:
        for one in protecting.unprotect(asked):
            print(f"{protecting.words_of(one)} is no longer protected")
    return EXIT_DONE


def _asked_protections(arguments: argparse.Namespace) -> list[Protection]:
    """What an operator names: files, or ports and a take within a time, or protections by their ids."""
    from sdisup.contract.files import utc_text
    from sdisup.contract.protections import Protection
    from sdisup.control import protect as protecting
    from sdisup.control.verify import is_file

    window = _window(arguments)
    words, ids = arguments.words, getattr(arguments, "id", [])
    is_of_time = bool(arguments.since or arguments.until)
    files = [word for word in words if is_file(word)]
    if ids:
        if words or is_of_time or arguments.take:
            raise UsageError("an id and something else", "name protections by --id alone")
        return [Protection(name=name) for name in ids]
    if files:
        if len(files) < len(words) or is_of_time or arguments.take:
            raise UsageError(
                "files and a choice of files together", "name the files alone, or ports, a time and a take"
            )
        return protecting.of_files(files)
    if not (arguments.take or (words and is_of_time)):
        raise UsageError("protect what?", "name files, or --take NAME, or ports with --since and --until")
    since, until = (utc_text(value) if value is not None else "" for value in (window.since_s, window.until_s))
    ports = [port.index for port in _with_ledgers(words)] if words else [None]
    return [Protection("", arguments.take or "", port, since, until) for port in ports]


def _protected(arguments: argparse.Namespace) -> int:
    from sdisup.cli.retention import protection_lines, protections_text
    from sdisup.control import protect as protecting

    found = protecting.covered(protecting.known_protections())
    lines = [protections_text(found)] if arguments.json else protection_lines(found)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    if not found and not arguments.json:
        remark("nothing is protected: sdisup protect FILE, --take NAME, or PORT --since … --until …")
    return EXIT_DONE


def _with_ledgers(words: list[str]) -> list[AppliedPort]:
    from sdisup.ledger.present import with_ledgers

    applied = with_ledgers(load_applied())
    return select(applied, words, "") if words else list(applied.ports.values())


def _window(arguments: argparse.Namespace) -> Window:
    import time

    from sdisup.cli.words import parse_time
    from sdisup.ledger.accounts import Window

    now = time.time()
    since, until = (text and parse_time(text, now) for text in (arguments.since, arguments.until))
    if since and until and since >= until:
        raise UsageError(f"--since {arguments.since} is not before --until {arguments.until}")
    with_short = getattr(arguments, "with_short", False)
    return Window(since or None, until or None, arguments.take, with_short=with_short)


def _verify(arguments: argparse.Namespace) -> int:
    from sdisup.control.verify import find_ffprobe, is_file, known_files, verify

    files = [word for word in arguments.files if is_file(word)]
    words = [word for word in arguments.files if not is_file(word)]
    if files and (words or arguments.since or arguments.until or arguments.take):
        raise UsageError("files and a choice of files together", "name the files alone, or ports, a time and a take")
    known = known_files(_with_ledgers(words), _window(arguments))
    for problem in known.problems:
        remark(str(problem))
    # The exit code where not all files are read, since a pipe's reader may close it early.
    arguments.code = EXIT_FAILED
    is_good = True
    for verdict in verify(known, files, find_ffprobe()):
        print(verdict, flush=True)
        is_good = is_good and verdict.is_good
    return EXIT_DONE if is_good else EXIT_FAILED


def _export(arguments: argparse.Namespace) -> int:
    """Each file that was made is told at once: a long export that fails later has made it all the same."""
    from sdisup.cli.exports import ended_well, json_text, lines
    from sdisup.control.export import export_take, find_ffmpeg

    ports, window, ffmpeg = _with_ledgers(arguments.ports), _window(arguments), find_ffmpeg()
    made = []
    with ended_well():
        for port in ports:
            for one in export_take(port, window, arguments.directory, ffmpeg, partial=arguments.partial):
                made.append(one)
                if not arguments.json:
                    sys.stdout.writelines(f"{line}\n" for line in lines(one))
                    sys.stdout.flush()
    if not made:
        hint = "sdisup recordings lists the files with their takes"
        raise SdisupError(f"there is no recording of a take {arguments.take!r}", hint)
    if arguments.json:
        print(json_text(made))
    return EXIT_DONE


def _schedule(arguments: argparse.Namespace) -> int:
    """The coming week of the ports' schedules."""
    import time

    from sdisup.cli.schedules import document, lines
    from sdisup.cli.status import json_text
    from sdisup.control.week import coming

    now = time.time()
    found = coming(selected(arguments), now)
    if arguments.json:
        print(json_text(document(found)))
    elif found:
        sys.stdout.writelines(f"{line}\n" for line in lines(found, now))
    else:
        remark("nothing is scheduled in the coming week; a port's `schedule` is in docs/schedules.md")
    return EXIT_DONE


def _retention(arguments: argparse.Namespace) -> int:
    """What would go, or a run at once. A limit that cannot be kept is a failure, as in the unit."""
    from sdisup.cli import retention as table
    from sdisup.contract.retention import files_text, load_rules, size_text
    from sdisup.control import retain

    if arguments.confirm_clock:
        retain.confirm_clock()
        print("the clock is right, you say: files go by their age again")
    if not load_rules():
        remark("no finished file is ever deleted: there is no rule; see docs/retention.md")
        if not (arguments.dry_run and arguments.json):
            return EXIT_DONE
    if arguments.dry_run:
        found = retain.look()
        problems = list(found.problems().values())
        arguments.code = EXIT_FAILED if problems else EXIT_DONE
        lines = [table.plan_text(found)] if arguments.json else table.plan_lines(found)
        sys.stdout.writelines(f"{line}\n" for line in lines)
    else:
        report = retain.run()
        problems = list(report.problems.values())
        size = size_text(report.deleted_bytes)
        print(table.report_text(report) if arguments.json else f"deleted {files_text(report.deleted)}, {size}")
    for text in problems:
        remark(text)
    return EXIT_FAILED if problems else EXIT_DONE


def _offload(arguments: argparse.Namespace) -> int:
    from sdisup.cli.offloads import document, lines
    from sdisup.cli.status import json_text
    from sdisup.offload.report import reports

    applied = load_applied()
    unknown = set(arguments.names) - {offload.name for offload in applied.offloads}
    if unknown:
        known = ", ".join(offload.name for offload in applied.offloads)
        hint = f"there are {known}" if known else "an [offload.NAME] of the configuration makes one, then: sdisup apply"
        raise UsageError(f"{', '.join(sorted(unknown))}: no such target", hint)
    chosen = [offload for offload in applied.offloads if not arguments.names or offload.name in arguments.names]
    found = reports(applied.replaced(offloads=tuple(chosen)))
    arguments.code = EXIT_FAILED if any(report.problems for report in found) else EXIT_DONE
    if arguments.json:
        print(json_text(document(found)))
    elif found:
        sys.stdout.writelines(f"{line}\n" for line in lines(found))
    else:
        remark("nothing is copied anywhere: an [offload.NAME] of the configuration makes a target, then: sdisup apply")
    return int(arguments.code)


def _stop(arguments: argparse.Namespace) -> int:
    from sdisup.control.ports import stop_ports

    return _report(stop_ports(selected(arguments), unlock=arguments.unlock))


def _drill(arguments: argparse.Namespace) -> int:
    from sdisup.drill.main import drill

    return drill(arguments.faults, as_json=arguments.json, remark=remark)


def _apply(arguments: argparse.Namespace) -> int:
    from sdisup.config.settings import Settings
    from sdisup.control.apply import apply, dry_run, one_at_a_time
    from sdisup.control.calendars import refusals

    if arguments.dry_run:
        settings = Settings.load(arguments.config, refusals)
        difference, consequences, warnings = dry_run(
            settings, restart=arguments.restart, accept_disks=arguments.accept_disks, unlock=arguments.unlock
        )
        for warning in warnings:
            remark(f"warning: {warning}")
        sys.stdout.write(difference)
        for consequence in consequences:
            remark(f"would {consequence}")
        if not difference and not consequences:
            remark("nothing to change")
        return EXIT_DONE
    with one_at_a_time():
        apply(
            Settings.load(arguments.config, refusals),
            restart=arguments.restart,
            accept_disks=arguments.accept_disks,
            unlock=arguments.unlock,
            say=print,
            warn=lambda text: remark(f"warning: {text}"),
        )
    return EXIT_DONE


def _check(arguments: argparse.Namespace) -> int:
    from sdisup.config.settings import Settings
    from sdisup.control.calendars import refusals

    try:
        settings = Settings.load(arguments.config, refusals)
    except ConfigError as error:
        # What the machine lacks for the other ports is said all the same.
        if isinstance(error.valid, Settings):
            _check_machine(error.valid, arguments.quick)
        raise
    found = _check_machine(settings, arguments.quick)
    from sdisup.control.check import pending

    try:
        state = pending(settings, arguments.quick)
    except SdisupError as error:
        state = str(error)
    if state:
        remark(state)
    if not found:
        remark(f"{settings.path} is valid, and this machine has what it needs")
    has_all = not arguments.probe or _show_inputs(settings)
    return EXIT_FAILED if found or not has_all else EXIT_DONE


def _show_inputs(settings: Settings) -> bool:
    """Print what there is to choose of each input; whether all inputs could be opened."""
    from sdisup.control.streams import listings

    has_all = True
    for listing in listings(settings.ports.values(), settings.ffmpeg):
        print("\n".join([f"{listing.label}: {listing.problem}".rstrip(": "), *(f"  {line}" for line in listing.lines)]))
        has_all = has_all and not listing.problem
    return has_all


def _check_machine(settings: Settings, quick: bool) -> list[str]:
    """Print what the machine lacks, and return it; warnings of what is doubtful are remarks."""
    from sdisup.control.check import report

    found, doubts = report(settings, quick)
    for warning in (*settings.warnings, *settings.overridden_of(), *doubts):
        remark(f"warning: {warning}")
    for problem in found:
        print(problem)
    return found


def _init(arguments: argparse.Namespace) -> int:
    from sdisup.control.init import discover, starter_toml, write_starter

    if arguments.output != "-" and os.path.lexists(arguments.output):
        raise SdisupError(f"{arguments.output} exists and is not overwritten", "sdisup init --output - only shows it")
    found = discover()
    for text in found.remarks:
        remark(text)
    text = starter_toml(found)
    if arguments.output == "-":
        sys.stdout.write(text)
    else:
        write_starter(text, arguments.output)
        print(f"wrote {arguments.output}; edit it, then run: sdisup check, sdisup apply")
    return EXIT_DONE


def _help(arguments: argparse.Namespace) -> int:
    """As `--help` and `COMMAND --help` do."""
    _parser(arguments.about or "").parse_args([*([arguments.about] if arguments.about else []), "--help"])
    return EXIT_DONE


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError("must be 0 to 3600 seconds")
    return value


def _ports_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("ports", nargs="*", metavar="PORT", help=PORTS_HELP)


def _chosen_ports_arguments(command: argparse.ArgumentParser) -> None:
    """For a command that changes something: it needs ports or --all."""
    _ports_arguments(command)
    command.add_argument("--all", action="store_true", help="all configured ports")


def _unlock_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("--unlock", action="store_true", help="also ports that are locked (lock = true); for root")


def _stop_arguments(command: argparse.ArgumentParser) -> None:
    _chosen_ports_arguments(command)
    _unlock_argument(command)


def _status_arguments(command: argparse.ArgumentParser) -> None:
    _ports_arguments(command)
    command.add_argument("--json", action="store_true", help="a JSON list, for programs")


def _restart_arguments(command: argparse.ArgumentParser) -> None:
    _wait_arguments(command)
    _unlock_argument(command)


def _wait_arguments(command: argparse.ArgumentParser) -> None:
    _chosen_ports_arguments(command)
    command.add_argument("--wait", type=_seconds, default=10.0, metavar="S", help="how long to wait for a frame (10 s)")
    command.add_argument("--no-wait", action="store_true", help="wait for nothing; sdisup status tells the outcome")


def _start_arguments(command: argparse.ArgumentParser) -> None:
    _wait_arguments(command)
    command.add_argument(
        "--all-or-none",
        action="store_true",
        help="stop what was started again where one of the ports has no frame on disk within --wait",
    )
    command.add_argument("--take", metavar="NAME", help="give what is recorded until the stop a name")
    _times_of_start(command)
    command.add_argument("--codec", metavar="CODEC", help="record this take in another codec")
    command.add_argument(
        "--path",
        metavar="PATH",
        help="for this take: a directory in the port's recordings, such as CUP, or a file there, such as CUP/FINAL.mov",
    )


def _times_of_start(command: argparse.ArgumentParser) -> None:
    from sdisup.cli.words import CLOCK_HELP

    command.add_argument("--for", dest="length", metavar="LENGTH", help="end it after 90s, 30min, 1h 30min, 2d")
    command.add_argument("--until", metavar="TIME", help=f"end it at this time: {CLOCK_HELP}")
    command.add_argument("--at", metavar="TIME", help="start it at this time, and return")


def _cut_arguments(command: argparse.ArgumentParser) -> None:
    _chosen_ports_arguments(command)
    command.add_argument("--take", metavar="NAME", help="the name of what is recorded from now on")
    command.add_argument(
        "--now", action="store_true", help="begin a new file at once, by a stop and a start; it says what that cost"
    )
    _unlock_argument(command)


def _logs_arguments(command: argparse.ArgumentParser) -> None:
    _ports_arguments(command)
    command.add_argument("-f", "--follow", action="store_true", help="go on with what is said from now on")
    command.add_argument("-b", "--boot", action="store_true", help="only this boot")
    command.add_argument("-n", "--lines", metavar="N", help="only the last N lines")
    command.add_argument("-p", "--priority", metavar="LEVEL", help="only this priority and worse, such as warning")
    command.add_argument("--since", metavar="TIME", help="as journalctl has it: 'today', '-1h', '2026-01-31 12:00'")
    command.add_argument("--until", metavar="TIME")


def _times_arguments(command: argparse.ArgumentParser, *, needs_take: bool = False) -> None:
    times = "now, today, yesterday, -2h, -30min, 2026-01-31, '2026-01-31 20:15' (local), 2026-01-31T19:15:00Z"
    command.add_argument("--since", metavar="TIME", help=f"only what is after it: {times}")
    command.add_argument("--until", metavar="TIME", help="only what is before it")
    command.add_argument("--take", metavar="NAME", required=needs_take, help="only what belongs to takes of this name")


def _recordings_arguments(command: argparse.ArgumentParser) -> None:
    _ports_arguments(command)
    _times_arguments(command)
    command.add_argument("--json", action="store_true", help="for programs; times are UTC then")


def _gaps_arguments(command: argparse.ArgumentParser) -> None:
    _recordings_arguments(command)
    command.add_argument(
        "--all",
        action="store_true",
        dest="with_short",
        help="also starts up to 1 s long, gaps below 0.05 s, and each time a port could not work",
    )
    command.add_argument("--fail-if-any", action="store_true", help="exit with 1 if there is a gap to list")


def _verify_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "files", nargs="*", metavar="PORT|FILE", help="a port's files, or files by their paths; without one, all files"
    )
    _times_arguments(command)


def _export_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("directory", metavar="DIR", help="where the file goes; nothing there is overwritten")
    _times_arguments(command, needs_take=True)
    command.add_argument("--port", action="append", default=[], dest="ports", metavar="PORT", help="only of this port")
    command.add_argument(
        "--partial", action="store_true", help="leave out files that are missing or being recorded, instead of failing"
    )
    command.add_argument("--json", action="store_true", help="a JSON list, for programs")


def _retention_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="only list what would be deleted now, and why")
    command.add_argument(
        "--confirm-clock", action="store_true", help="say that the clock is right, so that files go by their age again"
    )
    command.add_argument("--json", action="store_true", help="a JSON document, for programs")


def _protect_arguments(command: argparse.ArgumentParser) -> None:
    _unprotect_words(command)
    command.add_argument("--reason", metavar="TEXT", help="why, for those who find it later")


def _unprotect_arguments(command: argparse.ArgumentParser) -> None:
    _unprotect_words(command)
    command.add_argument("--id", action="append", default=[], metavar="N", help="by its number in sdisup protected")


def _unprotect_words(command: argparse.ArgumentParser) -> None:
    command.add_argument("words", nargs="*", metavar="FILE|PORT", help="files; or ports, with a time or a take")
    _times_arguments(command)


def _protected_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="a JSON list, for programs")


def _config_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", default=CONFIGURATION_PATH, metavar="FILE", help="another configuration")


def _check_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--quick", action="store_true", help="within a second: without running FFmpeg")
    command.add_argument("--probe", action="store_true", help="open custom inputs, and show what there is to choose")
    _config_argument(command)


def _offload_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("names", nargs="*", metavar="NAME", help="targets, as [offload.NAME] calls them")
    command.add_argument("--json", action="store_true", help="a JSON list, for programs")


def _help_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("about", nargs="?", metavar="COMMAND", choices=list(COMMANDS), help="the command to explain")


def _init_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", default=CONFIGURATION_PATH, metavar="FILE", help="another file; - only shows it")


def _drill_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--fault", action="append", default=[], dest="faults", metavar="NAME", help="only this one")
    command.add_argument("--json", action="store_true", help="the report as JSON, for programs")


def _apply_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="only print the differences, as a unified diff")
    command.add_argument("--restart", action="store_true", help="restart recording ports whose unit changed")
    command.add_argument(
        "--accept-disks", action="store_true", help="take the disks that recordings are on now for the right ones"
    )
    _unlock_argument(command)
    _config_argument(command)


COMMANDS: dict[
    str, tuple[Callable[[argparse.Namespace], int], str, Callable[[argparse.ArgumentParser], None]]
] = {
    "status": (status, "what each port does, as a table or as JSON", _status_arguments),
    "start": (_start, "start ports and wait for the first frame on disk", _start_arguments),
    "stop": (_stop, "stop ports and wait until their files are closed", _stop_arguments),
    "restart": (_start, "stop and start ports", _restart_arguments),
    "cut": (_cut, "let the next take begin while ports record, without a lost frame", _cut_arguments),
    "enable": (_enable, "let ports record at boot, from now on", _chosen_ports_arguments),
    "disable": (_enable, "no longer let ports record at boot; one that records goes on", _chosen_ports_arguments),
    "schedule": (_schedule, "what ports will record by themselves in the coming week", _status_arguments),
    "hold": (_hold, "let what a schedule began go on after its time, until it is stopped", _chosen_ports_arguments),
    "release": (_hold, "let a schedule end again what was held", _chosen_ports_arguments),
    "logs": (_logs, "what ports and their FFmpegs said, from the journal", _logs_arguments),
    "gaps": (_account, "what is missing of each port, since when, for how long and why", _gaps_arguments),
    "recordings": (
        _account, "what is recorded of each port: its files, their times and frames", _recordings_arguments
    ),
    "verify": (_verify, "read recorded files again and compare them with the ledger", _verify_arguments),
    "export": (_export, "make a take's files one file by copying, placed by their frames", _export_arguments),
    "retention": (_retention, "delete finished recordings by the rules, or list what would go", _retention_arguments),
    "protect": (_protect, "keep recordings from being deleted by rules", _protect_arguments),
    "unprotect": (_protect, "let rules delete recordings again that were protected", _unprotect_arguments),
    "protected": (_protected, "what is protected, by whom and why", _protected_arguments),
    "offload": (_offload, "what is copied to each target, what waits, and what is wrong", _offload_arguments),
    "check": (_check, "check the configuration and what this machine lacks for it; starts nothing", _check_arguments),
    "init": (
        _init, "write a commented configuration with the inputs that are found; overwrites nothing", _init_arguments
    ),
    "drill": (
        _drill, "play faults on a port of its own, beside the real ones, and measure what each costs", _drill_arguments
    ),
    "apply": (_apply, "make systemd's units what the configuration says", _apply_arguments),
    "help": (_help, "what there is, or what a command takes", _help_arguments),
}  # fmt: skip
"""Each command: the function that runs it, its help text, and the function that adds its arguments."""


class _Help(argparse.HelpFormatter):
    """A formatter that asks for the terminal's width once. argparse makes a formatter for each argument, and to ask
    it imports shutil, which imports all of Python's compression modules."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


@functools.cache
def _columns() -> int:
    said = os.environ.get("COLUMNS", "")
    try:
        return int(said) if said.isdecimal() and int(said) else os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _parser(only: str = "") -> argparse.ArgumentParser:
    """The parser of all commands, or of one: to make all would cost more than the rest of `sdisup status`."""
    parser = argparse.ArgumentParser(
        prog="sdisup",
        description="Records SDI inputs around the clock: one systemd unit, sdi-record@PORT, and one FFmpeg a port.",
        epilog="exit codes: 0 done, 1 failed, 2 usage or configuration, "
        "3 (status, start, restart, enable) a port that should record does not, 4 unknown port",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"sdisup {__version__}")
    parser.add_argument("--debug", action="store_true", help=DEBUG_HELP)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in [only] if only in COMMANDS else COMMANDS:
        run, text, add_arguments = COMMANDS[name]
        command = commands.add_parser(name, help=text, description=text, formatter_class=_Help)
        command.set_defaults(run=run)
        add_arguments(command)
        # --debug may stand before the command or behind it. SUPPRESS: a default here would overwrite the one before.
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=DEBUG_HELP)
    return parser


def _with_times_joined(words: Sequence[str]) -> list[str]:
    """Join `--since -2h` to `--since=-2h`, since argparse takes a word that begins with a dash for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--since", "--until") and word[:1] == "-" and word[1:2].isdigit():
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of any command; exits with 2 for what is none."""
    words = _with_times_joined(words)
    return _parser(next((word for word in words if not word.startswith("-")), "")).parse_args(words)
