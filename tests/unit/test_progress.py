"""FFmpeg's stderr: real samples, any cut of them, and bytes that no FFmpeg would write."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdisup.runner.progress import LINE_LIMIT_BYTES, FrameCheck, LogLine, Progress, ProgressParser, parse_log_line

Fields = tuple[object, ...]

# -loglevel repeat+level+info -nostats -progress pipe:2, stopped by one SIGTERM.
FFMPEG_5 = b"""\
[info] ffmpeg stats and -progress period set to 0.25.
[info] Input #0, lavfi, from 'testsrc2,realtime':
[info]   Duration: N/A, start: 0.000000, bitrate: N/A
[info]   Stream #0:0: Video: rawvideo (I420 / 0x30323449), yuv420p, 320x240 [SAR 1:1 DAR 4:3], 25 tbr, 25 tbn
frame=0
fps=0.00
stream_0_0_q=0.0
bitrate=N/A
total_size=0
out_time_us=0
out_time_ms=0
out_time=00:00:00.000000
dup_frames=0
drop_frames=0
speed=N/A
progress=continue
[info] frame=   25 fps=0.0 q=9.8 Lsize=      82kB time=00:00:00.96 bitrate= 702.2kbits/s speed=   1x    \n\
frame=25
fps=0.00
stream_0_0_q=9.8
bitrate= 702.2kbits/s
total_size=84347
out_time_us=961000
out_time_ms=961000
out_time=00:00:00.961000
dup_frames=0
drop_frames=0
speed=   1x
progress=end
[info] video:82kB audio:0kB subtitle:0kB other streams:0kB global headers:0kB muxing overhead: 1.025260%
[info] Exiting normally, received signal 15.
"""

# The same of 7.1, where units, contexts and N/A differ; the disk filled up.
FFMPEG_7 = b"""\
[info]   Stream #0:0: Video: mpeg4 (FMP4 / 0x34504D46), yuv420p(tv, progressive), 64x64 [SAR 1:1 DAR 1:1], q=2-31
frame=19
fps=24.99
stream_0_0_q=2.0
bitrate= 190.1kbits/s
total_size=N/A
out_time_us=760000
out_time_ms=760000
out_time=00:00:00.760000
dup_frames=3
drop_frames=2
speed=3.04x
progress=continue
[out#0/matroska @ 0x5645609fa9c0] [error] Task finished with error code: -28 (No space left on device)
[out#0/matroska @ 0x559121b51880] [info] video:28KiB audio:0KiB subtitle:0KiB other streams:0KiB
[info] frame=   20 fps=0.0 q=2.0 Lsize=      29KiB time=00:00:00.80 bitrate= 297.3kbits/s speed=2.35x    \n\
frame=20
out_time=N/A
dup_frames=3
drop_frames=2
speed=2.35x
progress=end
[mpeg4 @ 0x55fbf6102e80] [Eval @ 0x7ffd6884a790] [error] Undefined constant or missing '(' in 'abc'
To ignore this, add a trailing '?' to the map.
x264 [error]: invalid preset 'nosuch'
"""

# What a human's FFmpeg prints between the blocks when nobody said -nostats.
WITH_STATUS_LINES = (
    b"frame=   38 fps= 38 q=-0.0 size=     179kB time=00:00:01.48 bitrate= 992.5kbits/s speed=1.47x    \r"
    b"[info] Press [q] to stop, [?] for help\r\n"
    b"frame=38\r\nspeed=1.47x\r\nprogress=continue\r\n"
)


def fields(record: LogLine | Progress) -> Fields:
    if isinstance(record, LogLine):
        return ("log", record.priority, record.text)
    return ("progress", record.frame, record.dup_frames, record.drop_frames, record.speed, record.ended)


def parse(*pieces: bytes) -> list[Fields]:
    parser = ProgressParser()
    records = [record for piece in pieces for record in parser.feed(piece)]
    return [fields(record) for record in records + parser.close()]


def logged(records: list[Fields]) -> list[Fields]:
    return [record[1:] for record in records if record[0] == "log"]


def progressed(records: list[Fields]) -> list[Fields]:
    return [record[1:] for record in records if record[0] == "progress"]


# ---- Real samples ----


def test_a_recording_of_ffmpeg_5() -> None:
    records = parse(FFMPEG_5)
    assert progressed(records) == [(0, 0, 0, None, False), (25, 0, 0, 1.0, True)]
    assert logged(records)[0] == (6, "ffmpeg stats and -progress period set to 0.25.")
    assert logged(records)[-1] == (6, "Exiting normally, received signal 15.")
    assert len(logged(records)) == 7


def test_a_recording_of_ffmpeg_7() -> None:
    records = parse(FFMPEG_7)
    assert progressed(records) == [(19, 3, 2, 3.04, False), (20, 3, 2, 2.35, True)]
    assert logged(records)[1] == (
        3,
        "[out#0/matroska @ 0x5645609fa9c0] Task finished with error code: -28 (No space left on device)",
    )


def test_status_lines_for_people_are_cut_at_their_carriage_return() -> None:
    assert progressed(parse(WITH_STATUS_LINES)) == [(38, 0, 0, 1.47, False)]
    assert logged(parse(WITH_STATUS_LINES)) == [(6, "Press [q] to stop, [?] for help")]


@pytest.mark.parametrize(
    ("line", "priority", "text"),
    [
        (b"[error] Error writing trailer: x", 3, "Error writing trailer: x"),
        (b"[fatal] Unknown encoder 'x'", 2, "Unknown encoder 'x'"),
        (b"[panic] x", 2, "x"),
        (b"[warning] x", 4, "x"),
        (b"[verbose] x", 7, "x"),
        (b"[debug] x", 7, "x"),
        (b"[trace] x", 7, "x"),
        (b"[libx264 @ 0x55bce0353d40] [info] profile High", 6, "[libx264 @ 0x55bce0353d40] profile High"),
        (b"[mpeg4 @ 0x1] [Eval @ 0x2] [error] x", 3, "[mpeg4 @ 0x1] [Eval @ 0x2] x"),
        # No level, or a word that only looks like one.
        (b"To ignore this, add a trailing '?' to the map.", 6, "To ignore this, add a trailing '?' to the map."),
        (b"x264 [error]: invalid preset 'nosuch'", 6, "x264 [error]: invalid preset 'nosuch'"),
        (b"[a @ 0x1] no level here, but [error] later", 6, "[a @ 0x1] no level here, but [error] later"),
        # The first bracket that names a level decides, also against what a file is called.
        (b"[info] [error] is a strange name", 6, "[error] is a strange name"),
        (b"[unfinished", 6, "[unfinished"),
        (b"[]", 6, "[]"),
        (b"[", 6, "["),
        (b"[error]", 3, ""),
        (b"[ERROR] x", 6, "[ERROR] x"),
        # What a terminal or a table would trip over.
        (b"[error] caf\xe9 \x1b[31m\x00", 3, "caf\N{REPLACEMENT CHARACTER} " + "\N{REPLACEMENT CHARACTER}[31m\ufffd"),
        ("[error] Kölner Straße\t1".encode(), 3, "Kölner Straße 1"),
    ],
)
def test_a_log_line(line: bytes, priority: int, text: str) -> None:
    assert fields(parse_log_line(line)) == ("log", priority, text)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"frame=N/A\nprogress=continue\n", []),
        (b"frame=N/A\nspeed=N/A\nprogress=end\n", [(None, 0, 0, None, True)]),
        (b"progress=continue\n", []),
        # What is no block, or only looks like one.
        (b"progress=end\n", []),
        (b"[info] Server says:\nprogress=end\n", []),
        (b"speed=1x\n[info] a\nprogress=end\n", []),
        (b"frame=9\n[info] a\nspeed=1x\nprogress=continue\n", []),
        (b"dup_frames=9\nframe=1\nprogress=continue\n", [(1, 0, 0, None, False)]),
        # The last block of an FFmpeg whose log line swallowed its beginning.
        (b"[info] Reading...frame=3\nfps=1\nspeed=1x\nprogress=end\n", [(None, 0, 0, None, True)]),
        (b"frame=7\nprogress=continue\nprogress=continue\n", [(7, 0, 0, None, False)]),
        (b"frame=7\ndup_frames=N/A\ndrop_frames=x\nprogress=continue\n", [(7, 0, 0, None, False)]),
        (b"frame=-5\nprogress=continue\n", []),
        (b"frame=7.5\nprogress=continue\n", []),
        (b"frame=" + b"9" * 5000 + b"\nprogress=continue\n", []),
        (b"frame=999999999999999999\nprogress=continue\n", [(999999999999999999, 0, 0, None, False)]),
        (b"frame=\xd9\xa3\nprogress=continue\n", []),
        (b"frame=1\nspeed=1e999x\nprogress=continue\n", [(1, 0, 0, None, False)]),
        (b"frame=1\nspeed=nanx\nprogress=continue\n", [(1, 0, 0, None, False)]),
        (b"frame=1\nspeed=-1x\nprogress=continue\n", [(1, 0, 0, None, False)]),
        (b"frame=1\nspeed=\xff\nprogress=continue\n", [(1, 0, 0, None, False)]),
        (b"frame=1\nspeed=   1x\nprogress=continue\n", [(1, 0, 0, 1.0, False)]),
        (b"frame=1\nframe=2\nprogress=continue\n", [(2, 0, 0, None, False)]),
        (b"frame =1\nFRAME=2\nprogress=continue\n", []),
        # A status line for people inside a block spoils that block at most, and never invents a count.
        (b"frame=3\nframe=   4 fps=0.0 q=2.0 size=1kB\nprogress=continue\nframe=5\nprogress=continue\n",
         [(5, 0, 0, None, False)]),
        # A log line that an unfinished one runs into loses its block, not the next one's.
        (b"[info] Reading...frame=3\nfps=1\nprogress=continue\nframe=4\nprogress=continue\n",
         [(4, 0, 0, None, False)]),
    ],
)  # fmt: skip
def test_a_block(block: bytes, expected: list[Fields]) -> None:
    assert progressed(parse(block)) == expected


def test_an_unfinished_last_line_still_counts() -> None:
    assert logged(parse(b"[fatal] Unknown encoder 'x'")) == [(2, "Unknown encoder 'x'")]
    assert progressed(parse(b"frame=1\nprogress=end")) == [(1, 0, 0, None, True)]


def test_stream_lines_of_a_block_are_no_log() -> None:
    assert parse(b"stream_0_0_q=-1.0\nstream_12_3_psnr_y=1\n") == []


# ---- Counts that can be true ----


@pytest.mark.parametrize(
    ("blocks", "believed"),
    [
        # A recording; a source that delivers nothing for a while, and then all of it; a flood of copies.
        ([(0.25, 6), (0.5, 12), (0.75, 19)], [6, 12, 19]),
        ([(1, 25), (9, 25), (9.3, 225), (9.6, 232)], [25, 25, 225, 232]),
        ([(1, 25), (1.3, 1025), (1.6, 2025), (1.9, 3025)], [25, 1025, 2025, 3025]),
        # Faster than that, a block later.
        ([(1, 25), (1.3, 2025), (1.6, 4025), (1.9, 4033)], [25, 4025, 4033]),
        # A number that FFmpeg did not mean, also as the first one.
        ([(1, 25), (1.3, 999_999), (1.6, 40), (1.9, 47)], [25, 40, 47]),
        ([(0.3, 10**17), (0.5, 12), (0.8, 20)], [12, 20]),
        ([(1, 25), (1.3, 999_999), (1.6, 888_888), (1.9, 47)], [25, 47]),
    ],
)
def test_a_count_may_not_jump_by_more_than_the_time_allows(
    blocks: list[tuple[float, int]], believed: list[int]
) -> None:
    check = FrameCheck(0.0)
    assert [frame for at, frame in blocks if check.believes(at, frame)] == believed


# ---- Anything at all ----


@given(data=st.data(), sample=st.sampled_from([FFMPEG_5, FFMPEG_7, WITH_STATUS_LINES]))
def test_any_cut_gives_the_same_records(data: st.DataObject, sample: bytes) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sample)), max_size=40)))
    pieces = [sample[start:end] for start, end in zip([0, *cuts], [*cuts, len(sample)], strict=True)]
    assert parse(*pieces) == parse(sample)


def test_byte_by_byte_gives_the_same_records() -> None:
    for sample in (FFMPEG_5, FFMPEG_7, WITH_STATUS_LINES):
        assert parse(*(bytes([byte]) for byte in sample)) == parse(sample)


FRAGMENTS = st.sampled_from(
    [b"\n", b"\r", b"\0", b"=", b"[", b"]", b"[error] ", b"frame=", b"speed=", b"progress=", b"end", b"7", b"\xff",
     b"stream_", b"x" * LINE_LIMIT_BYTES, b" " * LINE_LIMIT_BYTES]
)  # fmt: skip


@given(st.lists(st.one_of(FRAGMENTS, st.binary(max_size=20)), max_size=30))
def test_no_bytes_raise_and_no_cut_matters(pieces: list[bytes]) -> None:
    records = parse(*pieces)
    assert records == parse(b"".join(pieces))
    for record in records:
        if record[0] == "log":
            text = str(record[2])
            assert text.isprintable() and len(text) <= LINE_LIMIT_BYTES
        else:
            frame = record[1]
            assert (record[5] and frame is None) or (isinstance(frame, int) and 0 <= frame < 10**18)


def test_a_line_without_end_costs_little_memory_and_time() -> None:
    chunk = b"x" * (1 << 16)
    parser = ProgressParser()
    parser.feed(chunk)
    tracemalloc.start()
    try:
        for _ in range(160):  # 10 MiB
            assert parser.feed(chunk) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(chunk)
    (line,) = parser.feed(b"\n")
    assert fields(line) == ("log", 6, "x" * LINE_LIMIT_BYTES)
    # What follows a runaway line is read as ever.
    assert [fields(record) for record in parser.feed(b"frame=1\nprogress=end\n")] == [("progress", 1, 0, 0, None, True)]


@pytest.mark.alone
@pytest.mark.parametrize("piece", [b"x", b"[", b"[a]", b"[a] ", b"\n", b"frame=1\n", b"frame=1\nprogress=continue\n"])
def test_time_grows_with_the_length_and_no_faster(piece: bytes) -> None:
    def seconds(size: int) -> float:
        data = piece * (size // len(piece))
        chunks = [data[start : start + 4096] for start in range(0, len(data), 4096)]
        best = 1e9
        for _ in range(3):
            began = time.process_time()
            parse(*chunks)
            best = min(best, time.process_time() - began)
        return best

    # Four times the bytes: about four times the seconds where it is linear, sixteen where it is not.
    assert seconds(1 << 18) < 9 * seconds(1 << 16) + 0.02


@settings(max_examples=50)
@given(st.dictionaries(st.binary(min_size=1, max_size=8), st.binary(max_size=8), max_size=50))
def test_unknown_keys_are_not_kept(block: dict[bytes, bytes]) -> None:
    parser = ProgressParser()
    for key, value in block.items():
        parser.feed(key + b"=" + value + b"\n")
    assert len(parser._block) <= 11


NUMBERS = st.sampled_from(
    ["0", "7", "25", "123456", "1.5", " 25", "", "N/A", "-1", "9" * 20, "1e+03", "0.97x", "   1x"]
)
KEYS = ("frame", "fps", "stream_0_0_q", "bitrate", "total_size", "dup_frames", "drop_frames", "speed", "progress")
LINES = st.builds("{}={}\n".format, st.sampled_from(KEYS), NUMBERS)
BLOCKS = st.builds(
    lambda values, last: "".join(map("{}={}\n".format, KEYS, [*values, last])),
    st.lists(NUMBERS, min_size=8, max_size=8), st.sampled_from(["continue", "continue", "end"]),
)  # fmt: skip
USUAL = st.builds(
    "frame={}\nfps=25.00\nbitrate= {}kbits/s\ndup_frames={}\ndrop_frames=0\nspeed={}x\nprogress=continue\n".format,
    st.integers(0, 10**7), st.floats(0, 999), st.integers(0, 99), st.floats(0, 99),
)  # fmt: skip
PIECES = st.one_of(
    USUAL, USUAL, USUAL, BLOCKS, LINES, st.builds(str.__add__, USUAL, LINES), st.builds(str.__add__, USUAL, USUAL),
    USUAL.map(lambda text: text[:20]), USUAL.map(lambda text: text[20:]), st.just("[info] 1397708110.000000\n"),
    st.just("\r"), st.just("12 "), st.just("\n"),
)  # fmt: skip


@given(st.lists(PIECES, min_size=1, max_size=8))
def test_a_block_like_the_one_before_is_read_as_any_other(pieces: list[str]) -> None:
    quick, slow = ProgressParser(), ProgressParser()
    for piece in pieces:
        found = quick.feed(piece.encode())
        slow._shape = b""
        assert found == slow.feed(piece.encode())
    assert quick.close() == slow.close()
