"""The pure parts of tests/bench: from samples to the table, the page and the plot."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import pytest
from appliance import CHECKOUT
from bench import peers
from bench.page import BEGIN, END, GROWTH_BEGIN, GROWTH_END, replace_between, report
from bench.peers import CONFIGURATION, KINDS, Bare, without_directives
from bench.plot import PLOTTED, plot
from bench.table import ROW_KEYS, ROWS, TITLES, Results, goals_table, main_table, summarize, verdicts
from bench.watch import FFmpegs, NothingCame, wait_frames, wait_gone
from test_fixtures import FFMPEGS

from sdisup.config.settings import parse_settings
from sdisup.contract.media import MATROSKA_CLUSTER, MATROSKA_SEGMENT
from sdisup.control.units import Machine, drop_in_path, render


def sample(peer: str, row: str, value: float | None, text: str = "") -> dict[str, Any]:
    return {"peer": peer, "row": row, "round": 0, "value": value, "text": text}


def measured(sdisup_s: float = 0.385) -> Results:
    times = {"hand": [0.28, 0.30, 0.29], "unit": [0.33], "bare": [0.37, 0.36, 0.38], "sdisup": [sdisup_s]}
    lines = [sample(peer, row, value) for row in PLOTTED for peer, values in times.items() for value in values]
    lines += [sample("unit", "frozen", None, "never"), sample("sdisup", "frozen", 5.9)]
    lines += [sample("sdisup", "python", 0.02), sample("unit", "python", 0.02), sample("sdisup", "status", 0.051)]
    lines += [sample("unit", "knows", None, "bench-unit@0 loaded active running | x")]
    lines += [{"peer": "pm2", "missing": "no network"}, {"peer": "circus", "round": 0, "failed": "eight: no"}]
    return Results(
        [
            *lines,
            {"versions": {"systemd": "257", "hand": "7.1.5"}},
            {"facts": {"machine": "two cores"}},
            {"turn": "hand", "round": 0},
        ]
    )


def test_a_median_comes_with_the_smallest_and_the_largest() -> None:
    assert summarize([3, 1, 8]) == (3, 1, 8, 3)


def test_a_field_has_median_spread_and_ratio() -> None:
    lines = main_table(measured()).splitlines()
    assert lines[0] == "|  | FFmpeg by hand | plain unit | bare | sdisup |"
    start = next(line for line in lines if line.startswith("| start → first"))
    assert "| 290 ms (280\N{EN DASH}300) | 330 ms, 1.14 \N{MULTIPLICATION SIGN} | 370 ms (360" in start
    frozen = next(line for line in lines if line.startswith("| FFmpeg frozen"))
    assert frozen.split("|")[2:6] == [" \N{EN DASH} ", " never ", " \N{EN DASH} ", " 5.90 s "]
    # A row of which there is no sample is no row of dashes.
    assert not any("crash loop" in line for line in lines)


@pytest.mark.parametrize(("sdisup_s", "is_reached"), [(0.385, True), (0.386, False)])
def test_what_is_to_be_reached_is_a_ratio_within_the_run(sdisup_s: float, is_reached: bool) -> None:
    found = {row.key: verdict for row, verdict in verdicts(measured(sdisup_s))}
    assert set(found) == {"start", "kill", "start8", "frozen", "status"}
    assert found["start"].is_reached is is_reached
    # The bare Python of all turns counts.
    assert not found["status"].is_reached and found["status"].found.startswith("2.55")
    assert ("| not reached |" in goals_table(measured(sdisup_s)).replace("**", "")) is True


def test_a_goal_is_not_judged_without_both_numbers() -> None:
    assert verdicts(Results([sample("sdisup", "start", 0.3)])) == []


def test_the_report_says_what_is_left_out_and_what_failed() -> None:
    text = report(measured())
    assert "pm2 is left out: no network." in text
    assert "(performance.svg)" in text and "| to reach |" in text
    assert "Not measured: circus: eight: no" in text
    assert "- machine: two cores\n- versions: systemd 257, FFmpeg 7.1.5" in text
    assert r"`bench-unit@0 loaded active running \| x`" in text


def test_a_part_of_a_run_is_reported_without_empty_tables_and_without_the_plot() -> None:
    text = report(Results([sample("pm2", "stop", 0.4)]))
    assert "| stop → FFmpeg gone | 400 ms |" in text
    assert "to reach" not in text and "svg" not in text


def test_only_what_is_between_the_markers_is_replaced() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = replace_between(page, "new\n")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert replace_between(once, "new\n") == once


@pytest.mark.parametrize("page", ["", BEGIN, f"{END} {BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_page_without_one_pair_of_markers_is_left_alone(page: str) -> None:
    with pytest.raises(ValueError, match="in this order"):
        replace_between(page, "new")


def test_the_page_of_the_repository_has_its_markers() -> None:
    page = (CHECKOUT / "docs/performance.md").read_text(encoding="utf-8")
    replace_between(page, "new")
    replace_between(page, "new", GROWTH_BEGIN, GROWTH_END)


def test_the_plot_has_a_bar_for_each_peer_within_the_picture() -> None:
    svg = "{http://www.w3.org/2000/svg}"
    root = xml.fromstring(plot(measured()))
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    bars = root.findall(f"{svg}rect")
    assert len(bars) == len(PLOTTED) * 4
    for bar in bars:
        assert 0 < float(bar.attrib["width"]) <= width - float(bar.attrib["x"])
        assert float(bar.attrib["y"]) + float(bar.attrib["height"]) <= height
    # Longer means longer: in each panel by hand is the shortest, and bare comes before sdisup.
    by_hand, unit, bare, ours = (float(bar.attrib["width"]) for bar in bars[:4])
    assert by_hand < unit < bare < ours
    style = root.findtext(f"{svg}style") or ""
    assert "prefers-color-scheme: dark" in style


def test_a_plot_of_nothing_is_a_picture_all_the_same() -> None:
    xml.fromstring(plot(Results([])))


def test_every_peer_has_a_title_and_every_row_a_key_of_its_own() -> None:
    assert {kind.key for kind in KINDS} == set(TITLES)
    assert len(set(ROW_KEYS)) == len(ROWS)


def test_directives_are_taken_out_of_a_unit_with_their_continuation_lines() -> None:
    text = "[Service]\nExecStart=\nExecStart=:/usr/bin/a -- \\\n    b \\\n    c\nType=notify\nTypes=kept\n"
    assert without_directives(text, ["ExecStart", "Type"]) == "[Service]\nTypes=kept\n"


def texts_of(configuration: str, version: str) -> dict[int, str]:
    """Each port's unit with its drop-in, as `systemctl cat` shows them."""
    settings = parse_settings([("sdisup.toml", tomllib.loads(configuration))])
    files = render(settings, Machine(FFMPEGS[version], 257, {}), "").files
    shared = files["/sdi-record@.service"]
    return {index: f"{shared}\n{files[drop_in_path(index, '')]}" for index in settings.ports}


@pytest.mark.parametrize("version", FFMPEGS)
@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_peers_record_what_a_port_does_into_one_file(
    version: str, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their command line is that of a port which makes one file, but for where its timestamps begin."""
    configuration = CONFIGURATION.replace('"mkv"', f'"{container}"')
    assert container in configuration
    one = texts_of(configuration.replace("[defaults]", "[defaults]\nsegment_s = 0"), version)
    several = texts_of(configuration, version)
    monkeypatch.setattr(peers, "unit_text", several.__getitem__)
    for port, text in one.items():
        wanted = shlex.split(text.replace("\\\n", " ").rpartition(" -- ")[2])
        assert "segment" not in wanted and wanted[-3] == "-f"
        wanted[-3:-3] = ["-avoid_negative_ts", "make_zero"]
        assert peers.port_command(port) == wanted
        if port == 0:
            unit = Bare()._unit()
            (command,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
            assert shlex.split(command.removeprefix("ExecStart=:")) == [
                *("/usr/bin/python3", "-I", "-S", f"{peers.PLACE}/bare.py"),
                *wanted,
            ]
            assert unit.count("ExecStart") == 1 and "ReadWritePaths=-/srv/recordings" in unit


HEADER, FRAME = MATROSKA_SEGMENT + b"\x01" + bytes([255] * 7), MATROSKA_CLUSTER + b"\x90" + bytes(16)
WRITES_MATROSKA = f"""\
import os, sys
library = open(os.__file__)
file = open(sys.argv[1], "wb", buffering=0)
file.write({HEADER!r})
print("there", flush=True)
sys.stdin.readline()
file.write({FRAME!r})
sys.stdin.readline()
"""


def test_first_frames_are_seen_from_outside(tmp_path: Path) -> None:
    """By a process that is called like no other, reads a file, and writes Matroska: a header, then a frame."""
    path, name = tmp_path / "a.mkv", f"ff{os.getpid()}"
    (tmp_path / name).symlink_to(os.path.realpath(sys.executable))
    with subprocess.Popen(
        [tmp_path / name, "-I", "-S", "-c", WRITES_MATROSKA, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == b"there\n"
        ffmpegs = FFmpegs(name)
        assert ffmpegs.find() == {process.pid}
        with pytest.raises(NothingCame):
            wait_frames(ffmpegs, 1, [], 0.05)
        process.stdin.write(b"\n")
        process.stdin.flush()
        (seen,) = wait_frames(ffmpegs, 1, [], 30)
        assert seen.pid == process.pid and 0 < seen.first_frame_at <= seen.named_at
        assert seen.size_bytes() == path.stat().st_size
        seen.close()
        with pytest.raises(NothingCame):
            wait_gone([process.pid], 0.05, name)
        process.kill()
        # A zombie is gone.
        assert wait_gone([process.pid], 30, name)
        assert FFmpegs(name).find() == set()


def test_the_command_tells_what_it_knows_and_refuses_the_rest() -> None:
    run = CHECKOUT / "tests/bench/run"
    told = subprocess.run([run, "--help"], capture_output=True, text=True, check=True, env=os.environ)
    assert all(word in told.stdout for word in (*ROW_KEYS, *TITLES))
    refused = subprocess.run([run, "--only", "speed"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "unknown: speed" in refused.stderr
