"""How files are named: a template, what it makes of a moment, and whether two ports could get one name."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from sdisup.config.names import common_path, paths_of
from sdisup.config.settings import Settings, parse_settings
from sdisup.contract.names import DEFAULT, FIELDS, MOMENTS, SAMPLES, fill, name_at, problem_of, replaced, shape
from sdisup.errors import ConfigError
from sdisup.ledger.writer import _pattern

NOON = 1769860800.9  # 2026-01-31T12:00:00Z
PORT = {"port": 3, "name": "CAM3", "take": "final-1", "codec": "h264"}


pytestmark = pytest.mark.usefixtures("in_berlin")


def path_of(template: str, number: int = 1, now: float = NOON, container: str = "mp4", **values: object) -> str:
    name = name_at(fill(template, {**PORT, **values}), container, now)
    return "/".join([*([name.folder] if name.folder else []), name.numbered(number)])


@pytest.mark.parametrize(
    ("template", "first", "second"),
    [
        (DEFAULT, "CAM3_20260131T120000Z.mp4", "CAM3_20260131T120000Z_2.mp4"),
        ("{local}-{port}", "20260131T130000+0100-3.mp4", "20260131T130000+0100-3_2.mp4"),
        ("{utc_date}/{name}/{take}", "2026-01-31/CAM3/final-1.mp4", "2026-01-31/CAM3/final-1_2.mp4"),
        ("{local_year}/{local_month}/{local_day}/{port}", "2026/01/31/3.mp4", "2026/01/31/3_2.mp4"),
        ("{local_time}", "130000+0100.mp4", "130000+0100_2.mp4"),
        ("{utc_year}{utc_month}{utc_day}{utc_time}", "20260131120000Z.mp4", "20260131120000Z_2.mp4"),
        ("{codec} {counter}", "h264 0001.mp4", "h264 0002.mp4"),
        ("{counter}of{name}", "0001ofCAM3.mp4", "0002ofCAM3.mp4"),
        ("a:b*c?/{name}|Küche", "a_b_c_/CAM3_K_che.mp4", "a_b_c_/CAM3_K_che_2.mp4"),
        ("a\\b<>\"/x", "a_b___/x.mp4", "a_b___/x_2.mp4"),
        ("a. /b.", "a__/b..mp4", "a__/b._2.mp4"),
        ("AUX/com1/nul", "AUX_/com1_/nul_.mp4", "AUX_/com1_/nul__2.mp4"),
        ("Aux.x/con .y/COM12", "Aux_.x/con _.y/COM12.mp4", "Aux_.x/con _.y/COM12_2.mp4"),
        ("CON{counter}", "CON0001.mp4", "CON0002.mp4"),
        ("{segment}/{name}_{segment}", "0001/CAM3_0001.mp4", "0001/CAM3_0001_2.mp4"),
        ("{segment}_{counter}", "0001_0001.mp4", "0001_0002.mp4"),
    ],
)  # fmt: skip
def test_what_a_template_makes(template: str, first: str, second: str) -> None:
    assert problem_of(template) == ""
    assert (path_of(template), path_of(template, 2)) == (first, second)


def test_a_takes_and_a_ports_name_are_made_usable_too() -> None:
    assert path_of("{take}/{name}", take="con", name="x.") == "con_/x..mp4"
    assert path_of("{take}/{name}", take="end.", name="LPT9.b") == "end_/LPT9_.b.mp4"
    # Of a unit that somebody wrote by hand.
    assert path_of("{name}", name="../{utc}") == ".._{utc}.mp4".replace("{", "_").replace("}", "_")


def test_the_offset_tells_the_two_hours_of_the_clocks_change_apart() -> None:
    summer, winter = 1792888200.0, 1792888200.0 + 3600
    assert [path_of("{local}", now=now) for now in (summer, winter)] == [
        "20261025T023000+0200.mp4", "20261025T023000+0100.mp4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", "has a folder or a file without a name"),
        ("/{name}", "begins with '/': it is relative to the port's recordings"),
        ("{name}/", "has a folder or a file without a name"),
        ("a//b", "has a folder or a file without a name"),
        ("a/./b", "has a folder or a file without a name"),
        ("../{name}", "leaves the port's recordings by '..'"),
        ("a/../../{name}", "leaves the port's recordings by '..'"),
        ("..", "leaves the port's recordings by '..'"),
        ("{name}\0", "has characters that cannot be printed"),
        ("{name}\n", "has characters that cannot be printed"),
        ("{name}\ud800", "has characters that cannot be printed"),
        ("{names}", "there is no field '{names}' (one of: port, name, take, codec, counter, segment, utc,"),
        ("{}", "there is no field '{}'"),
        ("{name", "a '{' has no '}'"),
        ("name}", "a '}' has no '{'"),
        ("{{name}}", "a '{' has no '}'"),
        ("{counter}/{name}", "{counter} counts files, and cannot be in a folder's name"),
        ("{counter}/{counter}", "{counter} counts files, and cannot be in a folder's name"),
        ("{counter}{counter}", "{counter} is in it twice"),
        ("x" * 240, "may become longer than a name can be (255 characters, 1024 in all)"),
        ("{name}{take}{name}{take}", "may become longer than a name can be"),
        ("/".join(["x" * 200] * 6), "may become longer than a name can be"),
    ],
)
def test_what_is_no_template(template: str, problem: str) -> None:
    assert problem_of(template).startswith(problem)


# ---- Numbers ----


@pytest.mark.parametrize(
    ("template", "names", "following"),
    [
        (DEFAULT, [], 2),
        (DEFAULT, ["CAM3_20260131T120000Z.mp4", "CAM3_20260131T120000Z_4.mov", "CAM3_20260131T120001Z_9.mp4"], 5),
        ("{name}_{counter}", [], 1),
        ("{name}_{counter}", ["CAM3_0007.mov", "CAM3_0003.mp4", "CAM31_0009.mp4", "CAM3_x.mp4", "CAM3_.mp4"], 8),
        ("{name}_{counter}", ["CAM3_12345.mp4", "CAM3_1e9.mp4", "CAM3_99999999999999.mp4", "CAM3_²²²².mp4"], 12346),
        ("{counter}-{name}", ["0002-CAM3.mp4", "0009-CAM31.mp4"], 3),
    ],
)  # fmt: skip
def test_the_next_number(template: str, names: list[str], following: int) -> None:
    name = name_at(fill(template, PORT), "mp4", NOON)
    assert name.next_number(names) == following
    assert name.numbered(following) not in names


# ---- Properties ----

LITERALS = st.text(st.sampled_from("aB1_-. :/é{}\0"), max_size=4) | st.sampled_from(["con", "AUX", "../", "lpt1."])
TEMPLATES = st.lists(LITERALS | st.sampled_from([f"{{{field}}}" for field in FIELDS]), max_size=6).map("".join)
TAKES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True) | st.sampled_from(["con", "nul.", "com1"])
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,4}", fullmatch=True) | st.sampled_from(
    ["con", "CON.", "A", "A1", "A_2"]
)
NUMBERS = st.integers(1, 99999)
MOMENT = st.integers(0, 4_000_000_000)
REFUSED = re.compile(
    r'[<>:"\\|?*\x00-\x1f\x7f-\U0010ffff]|[. ]$|^(?i:con|prn|aux|nul|(com|lpt)[0-9]) *(\.|$)', re.ASCII
)
GOOD = st.lists(
    st.sampled_from(
        ["a", "1", "_", ".", "A_2", "x/y", "{name}", "{name}", "{port}", "{take}", "{codec}", "{segment}", "{utc_day}"]
    ),
    min_size=1,
    max_size=4,
).map("".join)
COUNTED = st.one_of(GOOD, GOOD, GOOD.map(lambda template: template + "{counter}")).filter(lambda t: not problem_of(t))
"""Templates of two ports, which are alike as often as not."""


@given(TEMPLATES, TAKES, NAMES, NUMBERS, MOMENT)
@example("a\ud800", "a", "A", 1, 0)
def test_every_name_is_one_that_all_filesystems_take(
    template: str, take: str, name: str, number: int, now: int
) -> None:
    if problem_of(template):
        with pytest.raises(ConfigError) as caught:
            parse_settings([("a.toml", {"defaults": {"file_name": template}, "appliance": {"ports": 1}})])
        assert "defaults.file_name: " in caught.value.problems[0]
        return
    path = path_of(template, number, float(now), take=take, name=name)
    assert path.count("/") == template.count("/") and path.endswith(".mp4")
    for part in path.split("/"):
        assert 0 < len(part.encode()) <= 255 and not REFUSED.search(part)


@given(TEMPLATES, TAKES, NAMES, NUMBERS, MOMENT)
def test_the_ledgers_process_knows_a_ports_files_by_its_template(
    template: str, take: str, name: str, number: int, now: int
) -> None:
    assume(not problem_of(template))
    path = path_of(template, number, float(now), take=take, name=name)
    told = fill(template, {"port": 3, "name": name})
    assert re.fullmatch(_pattern(told), path, re.ASCII)


@settings_of_hypothesis(max_examples=300)
@given(COUNTED, COUNTED, NAMES, NAMES, st.tuples(TAKES, TAKES), st.tuples(NUMBERS, NUMBERS), MOMENT)
def test_what_two_ports_call_a_file_tells_them_apart_or_is_refused(
    one: str, other: str, name: str, other_name: str, takes: tuple[str, str], numbers: tuple[int, int], now: int
) -> None:
    made = path_of(one, numbers[0], float(now), port=1, name=name, take=takes[0])
    others = path_of(other, numbers[1], float(now), port=11, name=other_name, take=takes[1])
    if made.lower() == others.lower():
        assert common_path(paths_of(one, 1, name), paths_of(other, 11, other_name))


@given(COUNTED, COUNTED, NAMES, NAMES)
def test_a_common_path_is_one_of_both(one: str, other: str, name: str, other_name: str) -> None:
    path = common_path(paths_of(one, 1, name), paths_of(other, 11, other_name))
    for template, port, of in ((one, 1, name), (other, 11, other_name)) if path else ():
        pattern = _pattern(fill(template, {"port": port, "name": of}))
        assert re.fullmatch(pattern, f"{path}.mp4", re.ASCII | re.IGNORECASE)


def test_the_samples_are_of_the_fields() -> None:
    assert SAMPLES.keys() == MOMENTS.keys()
    assert all(path_of(f"{{{field}}}") == f"{sample}.mp4" for field, sample in SAMPLES.items())


def test_a_shape_is_text_and_the_fields_that_are_not_known() -> None:
    assert shape("AUX/{take}.{port}", {"port": 3}) == [("AUX_/", "take"), (".3", "")]
    assert shape("{utc_date}/{name}. /{counter}", {"name": "é"}) == [("", "utc_date"), ("/___/", "counter"), ("", "")]


# ---- Configuration ----


def settings(defaults: str, **ports: dict[str, str]) -> Settings:
    tables = {name.removeprefix("p"): values for name, values in ports.items()}
    document = {"appliance": {"ports": 12}, "defaults": {"file_name": defaults}, "port": tables}
    return parse_settings([("a.toml", document)])


@pytest.mark.parametrize(
    ("defaults", "ports"),
    [
        ("{name}_{utc}", {}),
        ("{utc_date}/{port}_{take}_{counter}", {}),
        ("{port}/{take}", {}),
        ("{name}_{take}", {"p1": {"name": "A"}, "p2": {"name": "B_A"}}),
        ("{name}{port}_{utc}", {"p1": {"name": "A1"}, "p11": {"name": "B"}}),
        ("x{port}", {"p1": {"file_name": "{utc}", "recordings": "/a"}, "p2": {"file_name": "{utc}"}}),
        ("{name}_{utc}", {"p1": {"name": "A"}, "p2": {"name": "A_20260131T120000Z"}}),
        ("{name}_{utc}", {"p1": {"recordings": "/srv/recordings/CAM", "file_name": "{utc}"}}),
    ],
)  # fmt: skip
def test_ports_that_are_told_apart(defaults: str, ports: dict[str, dict[str, str]]) -> None:
    assert settings(defaults, **ports).ports[1].file_name


@pytest.mark.parametrize(
    ("defaults", "ports", "text"),
    [
        ("{utc}", {}, "a.toml: defaults.file_name: '{utc}' could give files of port 0 and of port 1 one name"),
        ("{name}{port}", {"p1": {"name": "A1"}, "p11": {"name": "a"}}, "port 1 and of port 11 one name, such as A11"),
        ("{take}_{name}", {"p1": {"name": "B_A"}, "p2": {"name": "A"}}, "port 1 and of port 2 one name"),
        ("{name}", {"p1": {"name": "A"}, "p2": {"name": "A_2"}}, "port 1 and of port 2 one name, such as A_2"),
        (DEFAULT, {"p1": {"name": "A"}, "p2": {"file_name": "a_{utc}"}}, "port.2.file_name: 'a_{utc}' could give"),
        (DEFAULT, {"p3": {"file_name": "x"}, "p2": {"file_name": "X"}}, "port.3.file_name: 'x' could"),
        (DEFAULT, {"p1": {"name": "A", "recordings": "/srv/recordings/CAM", "file_name": "{utc}"},
                   "p2": {"file_name": "cam/{utc}"}}, "one name, such as /srv/recordings/"),
    ],
)  # fmt: skip
def test_ports_that_could_have_one_name(defaults: str, ports: dict[str, dict[str, str]], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(defaults, **ports)
    assert len(caught.value.problems) == 1 and text in caught.value.problems[0]


def test_what_is_replaced_is_said() -> None:
    assert replaced("{name}: é/{utc}?") == ":?é"
    found = settings("{name}", p1={"file_name": "{name}:{local_time}"})
    assert [text for text in found.warnings if "file_name" in text] == [
        "a.toml: port.1.file_name: has ':', which not every disk or Windows share takes: each becomes '_'"
    ]
