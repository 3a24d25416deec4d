"""The runner's own command line: what apply writes is what the runner reads."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.contract.names import problem_of
from sdisup.contract.options import ENDS, SEARCHES, OptionError, Options, format_options, parse_options

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)
SAMPLES: dict[str, Any] = {"str": "CAM3", "int": 3, "float": 12.5}
ANY: dict[str, st.SearchStrategy[str | int | float]] = {
    "str": TEXT,
    "int": st.integers(0, 999),
    "float": st.floats(min_value=0, max_value=1e6),
}
KINDS = {name: kind for name, kind in Options.__annotations__.items() if name != "command"}


def options() -> Options:
    """A port's options, whatever options there are."""
    return Options(["/usr/bin/ffmpeg", "-i", "x", "{output}"], **{name: SAMPLES[kind] for name, kind in KINDS.items()})


def test_what_is_written() -> None:
    assert format_options(options())[:3] == ["--port=3", "--name=CAM3", "--codec=CAM3"]
    assert format_options(options())[-5:] == ["--", "/usr/bin/ffmpeg", "-i", "x", "{output}"]
    assert parse_options(format_options(options())) == options()


LATER = ("--without-signal=", "--audio-options=")
LATER_NAMES = (
    "without_signal",
    "audio_options",
    "run_directory",
    "unit",
    "sound",
    "file_name",
    "timecode",
    "min_free_bytes",
)


def test_units_of_an_older_apply_lack_what_came_later() -> None:
    old = [word for word in format_options(options()) if not word.startswith(LATER)]
    assert parse_options(old) == options().replaced(without_signal="", audio_options="")
    assert format_options(parse_options(old)) == old


def test_a_port_of_an_older_unit_records_as_with_a_new_one() -> None:
    """For each command line of the fixtures: the runner knows from FFmpeg's arguments what was not said."""
    units = [path.read_text() for path in (Path(__file__).parent / "fixtures" / "units").glob("*.expected")]
    lines = [line for unit in units for line in re.findall(r"^ExecStart=:.*? run (.*\\\n.*)$", unit, re.MULTILINE)]
    new = [shlex.split(line.replace("\\\n", " ")) for line in lines]
    assert len(new) > 100
    for words in new:
        assert parse_options([word for word in words if not word.startswith(LATER)]) == parse_options(words)
    assert {parse_options(words).without_signal for words in new} == {"", ENDS, SEARCHES}


@given(
    values=st.fixed_dictionaries(
        {
            **{name: ANY[kind] for name, kind in KINDS.items()},
            "file_name": st.just("") | TEXT.filter(lambda text: not problem_of(text)),
        }
    ),
    command=st.lists(st.one_of(TEXT, st.sampled_from(["--", "--port=9", "-", ""])), min_size=1, max_size=6),
    place=st.integers(0, 6),
)
def test_any_port_comes_back_as_it_was(values: dict[str, Any], command: list[str], place: int) -> None:
    command.insert(min(place, len(command)), "{output}")
    written = Options(command, **values)
    read = parse_options(format_options(written))
    assert read == written
    assert isinstance(read.port, int) and isinstance(read.stop_term_s, float)


def replaced(word: str, by: str | None) -> list[str]:
    words = []
    for argument in format_options(options()):
        if argument.startswith(word):
            words += [] if by is None else [by]
        else:
            words.append(argument)
    return words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no FFmpeg command after --"),
        (["--port=3"], "no FFmpeg command after --"),
        (["--"], r"has no \{output\}"),
        (["--", "/usr/bin/ffmpeg"], r"has no \{output\}"),
        (["--", "/usr/bin/ffmpeg", "x{output}"], r"has no \{output\}"),
        (["--", "{output}"], "--port is missing"),
        (replaced("--port", "--port=x"), "'--port=x' is no number"),
        (replaced("--port", "--port="), "'--port=' is no number"),
        (replaced("--port", "--port=3.5"), "is no number"),
        (replaced("--port", "--port=-1"), "is no"),
        (replaced("--port", "--port=" + "9" * 5000), "is no"),
    ],
)
def test_what_does_not_say_what_to_record_is_refused_with_its_word(arguments: list[str], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        parse_options(arguments)


@pytest.mark.parametrize(
    ("arguments", "words", "changes"),
    [
        (replaced("--name", None), "option --name is missing; going on with 'port3'", {"name": "port3"}),
        (replaced("--stop-quit", None), "option --stop-quit-s is missing; going on with 3.0", {"stop_quit_s": 3.0}),
        (replaced("--stall", "--stall-timeout-s=soon"), "is no number; going on without", {"stall_timeout_s": 15.0}),
        # A time that no clock ever passes, or that has always passed, is a watch that is switched off.
        (replaced("--stall", "--stall-timeout-s=nan"), "is no number that can", {"stall_timeout_s": 15.0}),
        (replaced("--stall", "--stall-timeout-s=inf"), "is no number that can", {"stall_timeout_s": 15.0}),
        (replaced("--stall", "--stall-timeout-s=-5"), "is no number that can", {"stall_timeout_s": 15.0}),
        (replaced("--stop-quit", "--stop-quit-s=1e999"), "is no number that can", {"stop_quit_s": 3.0}),
        (replaced("--file-name", "--file-name=../x"), "'--file-name=../x' leaves the port's", {"file_name": ""}),
        (replaced("--file-name", "--file-name="), "'--file-name=' has a folder or a file without", {"file_name": ""}),
        (["--flux=1", *format_options(options())], "unknown option '--flux=1'; going on without it", {}),
        (["--command=x", *format_options(options())], "unknown option '--command=x'", {}),
        (["--port", *format_options(options())], "unknown option '--port'", {}),
        (["port=3", *format_options(options())], "unknown option 'port=3'", {}),
        (["-port=3", *format_options(options())], "unknown option", {}),
        (["", *format_options(options())], "unknown option ''", {}),
    ],
)
def test_an_option_more_or_less_is_said_and_the_port_records(
    arguments: list[str], words: str, changes: dict[str, Any]
) -> None:
    said: list[str] = []
    assert parse_options(arguments, said.append) == options().replaced(**changes)
    assert words in said[0]


def test_a_command_line_by_hand_records() -> None:
    said: list[str] = []
    command = ["ffmpeg", "-f", "lavfi", "-i", "testsrc2", "-f", "matroska", "{output}"]
    read = parse_options(["--port=3", "--", *command], said.append)
    assert (read.command, read.container, read.name, read.recordings) == (command, "mkv", "port3", "/srv/recordings")
    assert len(said) == len([name for name in KINDS if name not in LATER_NAMES]) - 1


@given(st.lists(st.one_of(TEXT, st.sampled_from(format_options(options()))), max_size=25))
def test_any_words_are_options_or_an_option_error(words: list[str]) -> None:
    try:
        assert "{output}" in parse_options(words).command
    except OptionError as error:
        assert str(error)
