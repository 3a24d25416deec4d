"""Why FFmpeg ended: every row of the table against what FFmpeg and the Deltacast input really say.

The samples are stderr lines as they were printed, by FFmpeg 5.1.9 and 7.1.5 for what could be run, and by
the `videomaster` input of Deltacast's fork (7.1.1) for its own messages.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.contract.options import ENDS, SEARCHES
from sdisup.runner.causes import (
    FAIL,
    FILE_DELETED,
    FORMAT_CHANGED,
    MISPLACED,
    NO_FRAME,
    NOT_EXECUTED,
    RETRY,
    STALLED,
    TABLE,
    WAIT,
    Cause,
    End,
    Fault,
    Row,
    classify,
    file_verdict,
    plain,
)
from sdisup.runner.progress import parse_log_line

# A command line in which stands what the samples' FFmpegs complained of, and no more than that.
COMMAND = (
    "/usr/bin/ffmpeg", "-foo", "-t", "-f", "nosuch", "-g", "999999999999", "abc", "-vf", "nosuch=1,scale=foo=3",
    "-c:v", "prores_aw", "-c:a", "nosuch", "-pix_fmt", "nosuch", "-preset", "nosuch", "-profile:v", "nosuch",
    "-movflags", "+hybrid_fragmented", "-f", "videomaster", "-nb_channels", "17", "{output}",
)  # fmt: skip


class Sample(NamedTuple):
    """An end: FFmpeg's last lines, what is known of it, and what it has to be called."""

    id: str
    log: str
    name: str
    outcome: str
    status: int = 1
    frames: int = 0
    without_signal: str = ""


def end_of(sample: Sample) -> End:
    lines = [parse_log_line(line.encode()) for line in sample.log.strip().splitlines()]
    return End(
        status=sample.status,
        frames=sample.frames,
        lines=tuple((line.priority, line.text) for line in lines),
        without_signal=sample.without_signal,
        command=COMMAND,
    )


def classify_sample(sample: Sample) -> Cause:
    return classify(end_of(sample))


def videomaster(name: str, outcome: str, message: str, status: int = 251, frames: int = 0) -> Sample:
    """One of the input's own messages, as FFmpeg 7.1.1 surrounds it at a failed start."""
    log = f"""
[videomaster @ 0x5581d2b0c0c0] [error] {message}
[videomaster @ 0x5581d2b0c0c0] [error] Failed to stop stream
[in#0 @ 0x5581d2b0bf00] [error] Error opening input: Input/output error
[error] Error opening input file stream 0 on board 0.
[fatal] Error opening input files: Input/output error
"""
    return Sample(f"videomaster: {message}", log, name, outcome, status, frames, ENDS)


REAL = [
    # ---- The disk ----
    Sample("disk full, mkv, 5.1", """
[error] av_interleaved_write_frame(): No space left on device
[error] Error writing trailer of full/x.mkv: No space left on device
[info] video:393kB audio:0kB subtitle:0kB other streams:0kB global headers:0kB muxing overhead: unknown
[error] Error closing file full/x.mkv: No space left on device
[info] Conversion failed!
""", "disk full", RETRY, 1, 20),
    Sample("disk full, mp4, 7.1", """
[out#0/mp4 @ 0x55f8fe8379c0] [error] Error muxing a packet
[out#0/mp4 @ 0x55f8fe8379c0] [error] Task finished with error code: -28 (No space left on device)
[out#0/mp4 @ 0x55f8fe8379c0] [error] Terminating thread with return code -28 (No space left on device)
[out#0/mp4 @ 0x55f8fe8379c0] [error] Error writing trailer: No space left on device
[out#0/mp4 @ 0x55f8fe8379c0] [error] Error closing file: No space left on device
[info] Conversion failed!
""", "disk full", RETRY, 228, 20),
    Sample("disk full at the header, 5.1", """
[error] Could not write header for output file #0 (incorrect codec parameters ?): No space left on device
[error] Error initializing output stream 0:0 --
[info] Conversion failed!
""", "disk full", RETRY),
    Sample("disk full at the header, 7.1", """
[out#0/mp4 @ 0x5654b1d12880] [error] Could not write header (incorrect codec parameters ?): No space left on device
[vf#0:0 @ 0x5654b1d15340] [error] Error sending frames to consumers: No space left on device
[out#0/mp4 @ 0x5654b1d12880] [error] Nothing was written into output file, because at least one of its streams
[info] Conversion failed!
""", "disk full", RETRY, 228),
    Sample("disk full at the trailer alone, exit 0", """
[error] Error writing trailer of CAM3.mp4: No space left on device
""", "disk full", RETRY, 0, 500),
    Sample("the file's limit, mkv, 5.1", """
[error] av_interleaved_write_frame(): File too large
[error] Error writing trailer of /srv/recordings/a.mkv: File too large
[error] Error closing file /srv/recordings/a.mkv: File too large
""", "too large", RETRY, 1, 131),
    Sample("the file's limit, mp4, 7.1", """
[vost#0:0/libx264 @ 0x55556469e580] [error] Error submitting a packet to the muxer: File too large
[out#0/mp4 @ 0x55556469dcc0] [error] Error muxing a packet
[out#0/mp4 @ 0x55556469dcc0] [error] Task finished with error code: -27 (File too large)
[out#0/mp4 @ 0x55556469dcc0] [error] Error closing file: File too large
""", "too large", RETRY, 229, 58),
    Sample("quota", "[error] av_interleaved_write_frame(): Disk quota exceeded", "disk full", RETRY, 1, 9),
    Sample("read-only, 5.1", "[error] full/a.mkv: Read-only file system", "disk error", RETRY),
    Sample("read-only, 7.1", """
[out#0/matroska @ 0x55b06e583800] [fatal] Error opening output /srv/recordings/a.mkv: Read-only file system
[error] Error opening output file /srv/recordings/a.mkv.
[fatal] Error opening output files: Read-only file system
""", "disk error", RETRY, 226),
    Sample("I/O error while recording, 5.1", """
[error] av_interleaved_write_frame(): Input/output error
[error] Error writing trailer of a.mkv: Input/output error
""", "disk error", RETRY, 1, 100),
    Sample("I/O error while recording, 7.1", """
[out#0/matroska @ 0x5645609fa9c0] [error] Error muxing a packet
[out#0/matroska @ 0x5645609fa9c0] [error] Task finished with error code: -5 (Input/output error)
""", "disk error", RETRY, 251, 100),
    # libavdevice/v4l2.c; the kernel's usb_submit_urb() answers so when the bus has no bandwidth left.
    Sample("USB bandwidth, 5.1", """
[video4linux2,v4l2 @ 0x5612f97eb500] [error] ioctl(VIDIOC_STREAMON): No space left on device
[error] /dev/video2: No space left on device
""", "no USB bandwidth", RETRY, 1, 0),
    Sample("USB bandwidth, 7.1", """
[video4linux2,v4l2 @ 0x5612f97eb500] [error] ioctl(VIDIOC_STREAMON): No space left on device
[in#0 @ 0x55c739ab6280] [error] Error opening input: No space left on device
[error] Error opening input file /dev/video2.
[fatal] Error opening input files: No space left on device
""", "no USB bandwidth", RETRY, 228, 0),
    Sample("NFS", "[error] Error closing file a.mkv: Stale file handle", "disk error", RETRY, 0, 100),
    # ---- What cannot work ----
    Sample("encoder, 5.1", "[fatal] Unknown encoder 'prores_aw'", "cannot work", FAIL),
    Sample("encoder, 7.1", """
[vost#0:0 @ 0x560115b98180] [fatal] Unknown encoder 'prores_aw'
[vost#0:0 @ 0x560115b98180] [fatal] Error selecting an encoder
[error] Error opening output file /tmp/a.mkv.
[fatal] Error opening output files: Encoder not found
""", "cannot work", FAIL, 8),
    Sample("decoder, 5.1", "[fatal] Unknown decoder 'nosuch'", "cannot work", FAIL),
    Sample("decoder, 7.1", """
[fatal] Unknown decoder 'nosuch'
[error] Error opening input file x.
[fatal] Error opening input files: Decoder not found
""", "cannot work", FAIL, 8),
    Sample("input, 5.1", "[fatal] Unknown input format: 'videomaster'", "cannot work", FAIL, 1, 0, ENDS),
    Sample("input, 7.1", """
[in#0 @ 0x55a34f2ac280] [fatal] Unknown input format: 'videomaster'
[error] Error opening input file stream 0 on board 0.
[fatal] Error opening input files: Invalid argument
""", "cannot work", FAIL, 234, 0, ENDS),
    Sample("option, both", """
[error] Unrecognized option 'foo'.
[fatal] Error splitting the argument list: Option not found
""", "cannot work", FAIL, 8),
    Sample("an option without its argument, both", """
[error] Missing argument for option 't'.
[fatal] Error splitting the argument list: Invalid argument
""", "cannot work", FAIL, 234),
    Sample("no output file, both", """
[warning] Trailing option(s) found in the command: may be ignored.
[fatal] At least one output file must be specified
""", "cannot work", FAIL),
    Sample("muxer, 5.1", """
[NULL @ 0x556c0a6720c0] [error] Requested output format 'nosuch' is not a suitable output format
[error] /tmp/a.mkv: Invalid argument
""", "cannot work", FAIL),
    Sample("muxer, 7.1", """
[AVFormatContext @ 0x55afa6784980] [error] Requested output format 'nosuch' is not known.
[out#0 @ 0x55afa6784880] [fatal] Error initializing the muxer for /tmp/a.mkv: Invalid argument
[error] Error opening output file /tmp/a.mkv.
[fatal] Error opening output files: Invalid argument
""", "cannot work", FAIL, 234),
    Sample("a file name without a known muxer, 5.1", """
[NULL @ 0x559ec28d65c0] [error] Unable to find a suitable output format for '/tmp/a.nosuch'
[error] /tmp/a.nosuch: Invalid argument
""", "cannot work", FAIL),
    Sample("a file name without a known muxer, 7.1", """
[AVFormatContext @ 0x55be3dd6c940] [error] Unable to choose an output format for '/tmp/a.nosuch'; use a standard
[out#0 @ 0x55be3dd6c840] [fatal] Error initializing the muxer for /tmp/a.nosuch: Invalid argument
""", "cannot work", FAIL, 234),
    Sample("filter, 5.1", """
[AVFilterGraph @ 0x56436ec70640] [error] No such filter: 'nosuch'
[error] Error reinitializing filters!
[error] Failed to inject frame into filter network: Invalid argument
[fatal] Error while processing the decoded data for stream #0:0
[info] Conversion failed!
""", "cannot work", FAIL),
    Sample("filter, 7.1", """
[AVFilterGraph @ 0x55f22fff14c0] [error] No such filter: 'nosuch'
[error] Error opening output file /tmp/a.mkv.
[fatal] Error opening output files: Filter not found
""", "cannot work", FAIL, 8),
    Sample("a filter's option, 5.1", """
[Parsed_scale_0 @ 0x558d3c5b3140] [error] Option 'foo' not found
[AVFilterGraph @ 0x558d3c5b2640] [error] Error initializing filter 'scale' with args 'foo=3'
[error] Error reinitializing filters!
[error] Failed to inject frame into filter network: Option not found
""", "cannot work", FAIL),
    Sample("a filter's option, 7.1", """
[error] Error applying option 'foo' to filter 'scale': Option not found
[error] Error opening output file /tmp/a.mkv.
[fatal] Error opening output files: Option not found
""", "cannot work", FAIL, 8),
    Sample("an option out of range, 5.1", """
[mpeg4 @ 0x55cea6c9e280] [error] Value 999999999999.000000 for parameter 'g' out of range [-2.14748e+09 - 2.14748e+09]
[mpeg4 @ 0x55cea6c9e280] [error] Error setting option g to value 999999999999.
[error] Error initializing output stream 0:0 -- Error while opening encoder for output stream #0:0
""", "cannot work", FAIL),
    Sample("no number, 7.1", """
[mpeg4 @ 0x55f31d8ece80] [Eval @ 0x7fff82481e20] [error] Undefined constant or missing '(' in 'abc'
[mpeg4 @ 0x55f31d8ece80] [error] Unable to parse option value "abc"
[mpeg4 @ 0x55f31d8ece80] [error] Error setting option g to value abc.
[vost#0:0/mpeg4 @ 0x55f31d8f2140] [error] Error applying encoder options: Invalid argument
""", "cannot work", FAIL, 234),
    Sample("a flag of a later FFmpeg, 5.1", """
[mov/mp4/tgp/psp/tg2/ipod/ismv/f4v muxer @ 0x55f7f559c5c0] [error] Unable to parse option value "hybrid_fragmented"
[mov/mp4/tgp muxer @ 0x55f7f559c5c0] [error] Error setting option movflags to value +hybrid_fragmented.
[error] Could not write header for output file #0 (incorrect codec parameters ?): Invalid argument
""", "cannot work", FAIL),
    Sample("x264's preset, 5.1", """
x264 [error]: invalid preset 'nosuch'
[libx264 @ 0x5596e4633280] [error] Error setting preset/tune nosuch/(null).
[libx264 @ 0x5596e4633280] [info] Possible presets: ultrafast superfast veryfast faster fast medium slow slower
[error] Error initializing output stream 0:0 -- Error while opening encoder for output stream #0:0
[info] Conversion failed!
""", "cannot work", FAIL),
    Sample("x264's profile, 7.1", """
x264 [error]: invalid profile: nosuch
[libx264 @ 0x561ae9161f00] [error] Error setting profile nosuch.
[vost#0:0/libx264 @ 0x561ae9167200] [error] Error while opening encoder - maybe incorrect parameters
[vf#0:0 @ 0x561ae9167d00] [error] Error sending frames to consumers: Invalid argument
[vost#0:0/libx264 @ 0x561ae9167200] [error] Could not open encoder before EOF
[out#0/matroska @ 0x561ae91668c0] [error] Nothing was written into output file, because at least one of its streams
[info] Conversion failed!
""", "cannot work", FAIL, 234),
    Sample("a pixel format, 7.1", """
[vost#0:0/mpeg4 @ 0x555ad33971c0] [fatal] Unknown pixel format requested: nosuch.
[error] Error opening output file /tmp/a.mkv.
[fatal] Error opening output files: Invalid argument
""", "cannot work", FAIL, 234),
    Sample("a codec that the container cannot hold, 7.1", """
[mp4 @ 0x55b0a0d3] [error] Could not find tag for codec prores in stream 0, codec not currently supported in container
[out#0/mp4 @ 0x55b0a0d3f880] [error] Could not write header (incorrect codec parameters ?): Invalid argument
[out#0/mp4 @ 0x55b0a0d3f880] [error] Nothing was written into output file, because at least one of its streams
""", "cannot work", FAIL, 234),
    # ---- What comes back ----
    Sample("no such stream just now, 5.1", """
[fatal] Stream map '0:a:0' matches no streams.
To ignore this, add a trailing '?' to the map.
""", "stream missing", RETRY, 1, 0),
    Sample("no such stream just now, 7.1", """
[fatal] Stream map '' matches no streams.
To ignore this, add a trailing '?' to the map.
[error] Failed to set value '0:a:0' for option 'map': Invalid argument
[error] Error parsing options for output file /tmp/a.mkv.
[fatal] Error opening output files: Invalid argument
""", "stream missing", RETRY, 234, 0),
    Sample("a GPU, 5.1", """
[h264_nvenc @ 0x557e7a4b85c0] [error] Cannot load libcuda.so.1
[error] Error initializing output stream 0:0 -- Error while opening encoder for output stream #0:0
[info] Conversion failed!
""", "device missing", RETRY),
    Sample("a GPU, 7.1", """
[h264_nvenc @ 0x55b2e0ad6ec0] [error] Cannot load libcuda.so.1
[vost#0:0/h264_nvenc @ 0x55b2e0adc180] [error] Error while opening encoder - maybe incorrect parameters
[vf#0:0 @ 0x55b2e0af7100] [error] Error sending frames to consumers: Operation not permitted
[vost#0:0/h264_nvenc @ 0x55b2e0adc180] [error] Could not open encoder before EOF
""", "device missing", RETRY, 255),
    Sample("a video device, 5.1", """
[video4linux2,v4l2 @ 0x55c289e01080] [error] Cannot open video device /dev/video77: No such file or directory
[error] /dev/video77: No such file or directory
""", "device missing", RETRY),
    Sample("an input file, 7.1", """
[in#0 @ 0x55c739ab6280] [error] Error opening input: No such file or directory
[error] Error opening input file /nosuch/in.mkv.
[fatal] Error opening input files: No such file or directory
""", "device missing", RETRY, 254),
    Sample("a device that is pulled", """
[video4linux2,v4l2 @ 0x5612f97eb500] [error] ioctl(VIDIOC_DQBUF): No such device
""", "device missing", RETRY, 0, 100),
    Sample("permission, 5.1", "[error] perm/a.mkv: Permission denied", "permission", RETRY),
    Sample("permission, 7.1", """
[out#0/matroska @ 0x561dee48f800] [fatal] Error opening output /tmp/a.mkv: Permission denied
[error] Error opening output file /tmp/a.mkv.
[fatal] Error opening output files: Permission denied
""", "permission", RETRY, 243),
    Sample("network, 5.1", """
[tcp @ 0x560661bde900] [error] Connection to tcp://127.0.0.1:1 failed: Connection refused
[error] tcp://127.0.0.1:1: Connection refused
""", "network", RETRY),
    Sample("network, 7.1", """
[in#0 @ 0x558dfd3b4280] [error] Error opening input: Connection refused
[error] Error opening input file tcp://127.0.0.1:1.
[fatal] Error opening input files: Connection refused
""", "network", RETRY, 145),
    Sample("a busy device", """
[video4linux2,v4l2 @ 0x5612f97eb500] [error] ioctl(VIDIOC_STREAMON): Device or resource busy
""", "device busy", RETRY, 240),
    Sample("pictures of another size than dnxhd or xdcam is to take, 7.1", """
[Parsed_crop_0 @ 0x7ff4d4001bc0] [error] Invalid too big or non positive size for width '0' or height '720'
[Parsed_crop_0 @ 0x7ff4d4001bc0] [error] Failed to configure input pad on Parsed_crop_0
[vf#0:0 @ 0x555566fae240] [error] Error reinitializing filters!
[vf#0:0 @ 0x555566fae240] [error] Task finished with error code: -22 (Invalid argument)
[vost#0:0/dnxhd @ 0x555566fadbc0] [error] Could not open encoder before EOF
""", "other picture size", RETRY, 234),
    Sample("a picture that is copied into an mp4, 5.1", """
[mp4 @ 0x5635451d7900] [error] Could not find tag for codec vp8 in stream #0, codec not currently supported in container
[error] Could not write header for output file #0 (incorrect codec parameters ?): Invalid argument
""", "not for the container", RETRY, 1),
    Sample("a picture that is copied into an mp4, 7.1", """
[mp4 @ 0x55556073eec0] [error] Could not find tag for codec vp8 in stream #0, codec not currently supported in container
[out#0/mp4 @ 0x5555607a3b40] [error] Could not write header (incorrect codec parameters ?): Invalid argument
""", "not for the container", RETRY, 234),
    Sample("a picture that is copied into a mov, 7.1", """
[mov @ 0x55557eb15dc0] [error] vp9 only supported in MP4.
[out#0/mov @ 0x55557eaebfc0] [error] Could not write header (incorrect codec parameters ?): Invalid argument
""", "not for the container", RETRY, 234),
    Sample("another picture that is copied into a mov, 5.1", """
[mov @ 0x562c4d77f900] [error] VP8 muxing is currently not supported.
[error] Could not write header for output file #0 (incorrect codec parameters ?): Not yet implemented in FFmpeg
""", "not for the container", RETRY, 1),
    Sample("the sound of an MPEG-TS that is copied into an mp4, 5.1", """
[mp4 @ 0x5626cf68f340] [error] Malformed AAC bitstream detected: use the audio bitstream filter 'aac_adtstoasc' to fix
[error] av_interleaved_write_frame(): Operation not permitted
""", "not for the container", RETRY, 1),
    Sample("a library is missing, both", """
/usr/bin/ffmpeg: error while loading shared libraries: libVideoMasterHD.so: cannot open shared object file: No such file
""", "library missing", RETRY, 127),
    Sample("FFmpeg is newer than its libraries, both", """
/usr/bin/ffmpeg: symbol lookup error: /usr/bin/ffmpeg: undefined symbol: av_foo, version LIBAVUTIL_59
""", "library missing", RETRY, 127),
    Sample("FFmpeg is newer than the system, both", """
/usr/bin/ffmpeg: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.99' not found (required by /usr/bin/ffmpeg)
""", "library missing", RETRY, 1),
    # ---- What is said of a server or an input, and not of the command line ----
    # libavformat/rtsp.c logs the status line as the server sent it, rtmpproto.c the server's description.
    Sample("a server's words, RTSP", """
[rtsp @ 0x55b2e0ad6ec0] [error] method OPTIONS failed: 451Option not found
[in#0 @ 0x55a34f2ac280] [error] Error opening input: Server returned 4XX Client Error, but not one of 40{0,1,3,4}
[error] Error opening input file rtsp://camera/1.
[fatal] Error opening input files: Server returned 4XX Client Error, but not one of 40{0,1,3,4}
""", "crash", RETRY, 8),
    Sample("a server's words, RTMP", """
[rtmp @ 0x55b2e0ad6ec0] [error] Server error: Unknown encoder 'prores_aw'
[in#0 @ 0x55a34f2ac280] [error] Error opening input: Operation not permitted
""", "permission", RETRY, 255),
    Sample("broken sound, 5.1", """
[abuffer @ 0x555ef3c60080] [error] Value inf for parameter 'time_base' out of range [0 - 2.14748e+09]
[abuffer @ 0x555ef3c60080] [error] Error setting option time_base to value 1/0.
[graph_0_in_0_0 @ 0x555ef3c5ff40] [error] Error applying options to the filter.
[error] Error configuring filter graph
[info] Conversion failed!
""", "crash", RETRY, 1),
    Sample("a stream whose codec the container cannot hold", """
[mp4 @ 0x55b0a0d3] [error] Could not find tag for codec pcm_bluray in stream #0, codec not currently supported in
[out#0/mp4 @ 0x55b0a0d3f880] [error] Could not write header (incorrect codec parameters ?): Invalid argument
""", "crash", RETRY, 234),
    # ---- Ends that no row explains ----
    Sample("a packet that the muxer refuses, 7.1", """
[mp4 @ 0x5645609fa9c0] [error] Application provided duration: -512 is invalid
[out#0/mp4 @ 0x5645609fa9c0] [error] Error muxing a packet
[out#0/mp4 @ 0x5645609fa9c0] [error] Task finished with error code: -22 (Invalid argument)
[out#0/mp4 @ 0x5645609fa9c0] [error] Terminating thread with return code -22 (Invalid argument)
""", "crash", RETRY, 234, 100),
    Sample("a packet that the muxer refuses while the input fails", """
[out#0/mp4 @ 0x5645609fa9c0] [error] Error muxing a packet
[in#0/v4l2 @ 0x5581d2b0bf00] [error] Error during demuxing: Input/output error
""", "crash", RETRY, 234, 100),
    Sample("killed", "[info] Press [q] to stop, [?] for help", "killed", RETRY, -9, 100),
    Sample("out of memory", "", "killed", RETRY, -9, 0),
    Sample("crashed", "", "killed", RETRY, -11, 100),
    Sample("ended normally, 7.1", """
[out#0/matroska @ 0x559121b51880] [info] video:28KiB audio:0KiB subtitle:0KiB other streams:0KiB
[info] frame=   20 fps=0.0 q=2.0 Lsize=      29KiB time=00:00:00.80 bitrate= 297.3kbits/s speed=2.35x
""", "ended", RETRY, 0, 20),
    Sample("zero frames, 5.1", """
[info] frame=    0 fps=0.0 q=0.0 Lsize=       1kB time=00:00:00.00 bitrate=N/A speed=   0x
[info] video:0kB audio:0kB subtitle:0kB other streams:0kB global headers:0kB muxing overhead: unknown
""", "ended", RETRY, 0, 0),
    Sample("zero frames, 7.1", """
[out#0/matroska @ 0x55eb4d8b4840] [warning] Output file is empty, nothing was encoded(check -ss / -t / -frames)
""", "ended", RETRY, 0, 0),
    Sample("zero frames with abort_on, 5.1", """
[fatal] Empty output
[info] Conversion failed!
""", "crash", RETRY, 1, 0),
    Sample("somebody's SIGTERM", "[info] Exiting normally, received signal 15.", "crash", RETRY, 255, 26),
    # ---- The Deltacast input, with what VIDEOMASTER.md 7 and 8 say of a missing and a lost signal ----
    Sample("no signal, without -map", """
[out#0/matroska @ 0x55de9c5b1840] [error] Output file does not contain any stream
[videomaster @ 0x5581d2b0c0c0] [error] Failed to stop stream
[videomaster @ 0x5581d2b0c0c0] [error] Failed to stop stream
""", "no signal", WAIT, 234, 0, ENDS),
    Sample("no signal, with -map", """
[fatal] Stream map '' matches no streams.
To ignore this, add a trailing '?' to the map.
[error] Failed to set value '0:v:0' for option 'map': Invalid argument
[error] Error parsing options for output file /tmp/a.mkv.
[fatal] Error opening output files: Invalid argument
[videomaster @ 0x5581d2b0c0c0] [error] Failed to stop stream
""", "no signal", WAIT, 234, 0, ENDS),
    Sample("no signal, with a filter graph", """
[fc#0 @ 0x55fb1e82bd00] [fatal] Stream specifier ':v' in filtergraph description [0:v]null matches no streams.
[fatal] Error binding filtergraph inputs/outputs: Invalid argument
""", "no signal", WAIT, 234, 0, ENDS),
    Sample("locked without frames, exit 0", """
[videomaster @ 0x5581d2b0c0c0] [error] Timeout while waiting for slot lock
[out#0/matroska @ 0x55b664222880] [warning] Output file is empty, nothing was encoded(check -ss / -t / -frames)
""", "no signal", WAIT, 0, 0, ENDS),
    Sample("locked without frames, with abort_on", """
[out#0/matroska @ 0x55b664222880] [fatal] Output file is empty, nothing was encoded(check -ss / -t / -frames)
[info] Conversion failed!
""", "no signal", WAIT, 234, 0, ENDS),
    Sample("the board fails", """
[videomaster @ 0x5581d2b0c0c0] [error] Failed to lock slot handle
[videomaster @ 0x5581d2b0c0c0] [error] Failed to get data buffers
[in#0/videomaster @ 0x5581d2b0bf00] [error] Error during demuxing: Input/output error
""", "board fault", RETRY, 0, 750, ENDS),
    Sample("cable pulled, exit 0", """
[videomaster @ 0x5581d2b0c0c0] [error] Timeout while waiting for slot lock
[videomaster @ 0x5581d2b0c0c0] [error] Failed to get data buffers
[in#0/videomaster @ 0x5581d2b0bf00] [error] Error during demuxing: Input/output error
""", "signal lost", WAIT, 0, 750, ENDS),
    Sample("cable pulled, with xerror", """
[videomaster @ 0x5581d2b0c0c0] [error] Failed to get data buffers
[in#0/videomaster @ 0x5581d2b0bf00] [error] Error during demuxing: Input/output error
""", "signal lost", WAIT, 251, 750, ENDS),
    Sample("a full disk also where the signal went next", """
[out#0/mp4 @ 0x55f8fe8379c0] [error] Error muxing a packet
[out#0/mp4 @ 0x55f8fe8379c0] [error] Task finished with error code: -28 (No space left on device)
[videomaster @ 0x5581d2b0c0c0] [error] Timeout while waiting for slot lock
""", "disk full", RETRY, 228, 750, ENDS),
]  # fmt: skip

# FFmpeg's own decklink input; no machine without a card can run it, so these stand as in its source.
BLACKMAGIC = [
    Sample(f"decklink: {message}", f"""
[decklink @ 0x5581d2b0c0c0] [error] {message}
[in#0 @ 0x5581d2b0bf00] [error] Error opening input: Input/output error
[error] Error opening input file DeckLink SDI.
[fatal] Error opening input files: Input/output error
""", name, outcome, 251, 0, SEARCHES)
    for name, outcome, message in (
        ("no signal", WAIT, "Cannot Autodetect input stream or No signal"),
        ("board missing", RETRY, "Could not create DeckLink iterator. Make sure you have DeckLink drivers 10.11"),
        ("board missing", RETRY, "Could not open 'DeckLink SDI'"),
        ("device busy", RETRY, "Cannot enable video input"),
        ("device busy", RETRY, "Cannot enable audio input"),
    )
]  # fmt: skip

MESSAGES = [
    *[videomaster("board missing", RETRY, message) for message in (
        "No DELTACAST boards detected", "Invalid board index: 3", "Failed to open board handle",
        "Failed to retrieve API version", "Failed to retrieve number of RX channels")],
    *[videomaster("channel unusable", RETRY, message) for message in (
        "Invalid channel index: 9", "Failed to get stream properties", "Failed to start stream")],
    videomaster("device busy", RETRY, "Failed to open stream handle"),
    *[videomaster("cannot work", FAIL, message, 222) for message in (
        "Unknown stream selected", "Board index is not set", "Not implemented video buffer packing",
        "Board does not support line padding property", "Hardware time stamping is not supported",
        "LTC companion card feature is not supported", "LTC companion card is not detected",
        "LTC on-board feature is not supported",
        "Value 17.000000 for parameter 'nb_channels' out of range [1 - 16]")],
]  # fmt: skip

MESSAGES.append(
    Sample(
        "the next file is not ready",
        """
[segment @ 0x564] [error] Failed to open segment '/proc/14752/fd/103'
[error] av_interleaved_write_frame(): No such file or directory
[error] Error writing trailer of /proc/14752/fd/10%d: Invalid argument
""",
        "disk",
        RETRY,
        1,
        150,
    )
)
MESSAGES.append(
    Sample(
        "videomaster: the signal became a smaller one",
        """
[rawvideo @ 0x55d1] [error] Invalid buffer size, packet size 414720 < expected frame_size 4147200
[vist#0:0/rawvideo @ 0x55d2] [error] Error submitting packet to decoder: Invalid argument
""",
        "format changed",
        RETRY,
        234,
        50,
        ENDS,
    )
)

MESSAGES.append(
    Sample(
        "a camera's picture became a smaller one, with xerror",
        """
[rawvideo @ 0x55d1] [error] Invalid buffer size, packet size 57600 < expected frame_size 115200
[vist#0:0/rawvideo @ 0x55d2] [error] Error submitting packet to decoder: Invalid argument
[info] Conversion failed!
""",
        "format changed",
        RETRY,
        234,
        50,
    )
)

SAMPLES = [*REAL, *BLACKMAGIC, *MESSAGES]
HARMLESS = (
    "Failed to stop stream",
    "Cannot retrieve audio stream properties for SDI stream",
    "Guessed Channel Layout for Input Stream #0.1 : stereo",
    "Conversion failed!",
)


def row_of(sample: Sample) -> Row | None:
    """The row that explains a sample: the first that applies and is matched."""
    end = end_of(sample)
    return next((row for row in TABLE if row.applies(end) and row.line(end)), None)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.id)
def test_each_end_has_its_cause(sample: Sample) -> None:
    cause = classify_sample(sample)
    assert (cause.name, cause.outcome) == (sample.name, sample.outcome), cause
    assert cause.reason and cause.reason.isprintable()


def test_every_row_explains_a_sample() -> None:
    explained = {id(row_of(sample)) for sample in SAMPLES}
    unused = [(row.name, row.patterns) for row in TABLE if id(row) not in explained]
    assert unused == []


def test_ids_are_unique() -> None:
    assert len({sample.id for sample in SAMPLES}) == len(SAMPLES)


# ---- What must not happen ----


def test_an_unknown_end_is_a_crash_with_ffmpegs_last_words() -> None:
    log = """
[h264 @ 0x1] [error] an earlier error
[libfoo @ 0x55b2e0ad6ec0] [error] the moon is in the wrong phase
[vf#0:0 @ 0x55b2e0af7100] [error] Error sending frames to consumers: Generic error in an external library
[vf#0:0 @ 0x55b2e0af7100] [error] Task finished with error code: -542398533 (Generic error in an external library)
[vf#0:0 @ 0x55b2e0af7100] [error] Terminating thread with return code -542398533 (Generic error)
[vost#0:0/libfoo @ 0x55b2e0adc180] [error] Could not open encoder before EOF
[out#0/mp4 @ 0x55b2e0adb840] [error] Nothing was written into output file, because at least one of its streams
[error] Error opening output file /tmp/a.mkv.
[fatal] Error opening output files: Generic error in an external library
[videomaster @ 0x5581d2b0c0c0] [error] Failed to stop stream
[info] Conversion failed!
"""
    cause = classify_sample(Sample("", log, "crash", RETRY, 187))
    assert (cause.name, cause.outcome) == ("crash", RETRY)
    assert cause.reason == "FFmpeg exited with 187: the moon is in the wrong phase"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("""
[libx264 @ 0x55b18310ce80] [error] width not divisible by 2 (853x480)
[error] Error initializing output stream 0:0 -- Error while opening encoder for output stream #0:0 - maybe incorrect
[info] Conversion failed!
""", "video: width not divisible by 2 (853x480)"),
        ("""
[libx264 @ 0x55555573f780] [error] width not divisible by 2 (853x480)
[vost#0:0/libx264 @ 0x55555573f780] [error] Error while opening encoder - maybe incorrect parameters such as bit_rate
[vf#0:0 @ 0x555555740440] [error] Error sending frames to consumers: Generic error in an external library
[vf#0:0 @ 0x555555740440] [error] Task finished with error code: -542398533 (Generic error in an external library)
[vost#0:0/libx264 @ 0x55555573f780] [error] Could not open encoder before EOF
[out#0/matroska @ 0x55555573ee40] [error] Nothing was written into output file, because at least one of its streams
[info] Conversion failed!
""", "video: width not divisible by 2 (853x480)"),
        ("""
[aac @ 0x55942131bfc0] [error] Specified sample rate 5000 is not supported
[error] Error initializing output stream 0:1 -- Error while opening encoder for output stream #0:1 - maybe incorrect
""", "audio: Specified sample rate 5000 is not supported"),
        ("""
[aac @ 0x555592920340] [error] Specified sample rate 5000 is not supported by the aac encoder
[aac @ 0x555592920340] [error] Supported sample rates:
[aac @ 0x555592920340] [error]   96000
[aost#0:1/aac @ 0x55559291ff00] [error] Error while opening encoder - maybe incorrect parameters such as bit_rate
[af#0:1 @ 0x555592920b40] [error] Error sending frames to consumers: Invalid argument
[aost#0:1/aac @ 0x55559291ff00] [error] Could not open encoder before EOF
""", "audio: Specified sample rate 5000 is not supported by the aac encoder"),
        ("[vost#0:0/x @ 0x1] [error] Error while opening encoder - x", "video: Error while opening encoder - x"),
        ("[a @ 0x1] [error] [b @ 0x2f] sees a thing @ 0x55aa00 and [c @ 0x3]", "sees a thing and [c]"),
    ],
)  # fmt: skip
def test_the_line_that_helps_is_kept_with_its_track_and_without_addresses(log: str, reason: str) -> None:
    cause = classify_sample(Sample("", log, "", RETRY, 187))
    assert (cause.name, cause.reason) == ("crash", f"FFmpeg exited with 187: {reason}")


def test_a_stream_that_is_missing_is_named() -> None:
    said = {sample.id: classify_sample(sample).reason for sample in SAMPLES if sample.name == "stream missing"}
    words = 'stream missing: the source has no sound; audio = "optional" records without it'
    assert said == {"no such stream just now, 5.1": words, "no such stream just now, 7.1": words}


def test_only_a_source_that_has_the_setting_is_told_of_it() -> None:
    lines = ((3, "Stream map '0:a:0' matches no streams."),)
    said = classify(End(1, 0, lines=lines, without_signal=SEARCHES))
    assert said.reason == "stream missing: the source has no sound"
    picture = classify(End(1, 0, lines=((3, "Stream map '0:v:0' matches no streams."),)))
    assert picture.reason == "stream missing: the source has no picture"
    for words in (
        "Stream map '0:p:7:v:0' matches no streams.",
        "Failed to set value '0:p:7:v:0' for option 'map': Invalid",
    ):
        both = ((3, words), (3, "Stream map '' matches no streams."))
        asked = classify(End(1, 0, lines=both)).reason
        assert asked == "stream missing: there is no picture 0:p:7:v:0; sdisup check --probe shows what there is"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ffmpeg -y -f videomaster -timestamp_source system -i x -c:v h264 {output}", "this FFmpeg has no input "
         "'videomaster', or a version of it without that option; see: sdisup check"),
        ("ffmpeg -f lavfi -i a -f alsa -timestamp_source 1 -i b {output}", "this FFmpeg has no input 'alsa', or a "
         "version of it without that option; see: sdisup check"),
        # Of no input's demuxer.
        ("ffmpeg -f lavfi -i a -timestamp_source 1 -i b {output}", ""),
        ("ffmpeg -f lavfi -i a -timestamp_source 1 -f mp4 {output}", ""),
    ],
)  # fmt: skip
def test_an_option_of_an_input_that_this_ffmpeg_lacks(command: str, words: str) -> None:
    """FFmpeg looks for the option before it looks for the input: Deltacast's is in no other FFmpeg."""
    lines = ((3, "Unrecognized option 'timestamp_source'."), (3, "Error splitting the argument list: Option not found"))
    cause = classify(End(8, 0, lines=lines, command=tuple(command.split())))
    assert (cause.name, cause.outcome) == ("cannot work", FAIL)
    said = "cannot work: Unrecognized option 'timestamp_source'"
    assert cause.reason == (f"{said}: {words}" if words else f"{said}.")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.id)
def test_no_cause_carries_an_address(sample: Sample) -> None:
    cause = classify_sample(sample)
    assert "0x" not in cause.name + cause.reason
    assert "0x" not in file_verdict(end_of(sample), sample.frames)


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.outcome == FAIL], ids=lambda sample: sample.id)
def test_nothing_is_given_up_for_words_that_somebody_else_said(sample: Sample) -> None:
    """A server's answer or an input's content in FFmpeg's words is always behind some of FFmpeg's own."""
    end = end_of(sample)
    quoted = tuple((priority, f"[rtmp @ 0x55b2] Server error: {plain(text)}") for priority, text in end.lines)
    assert classify(end.replaced(lines=quoted)).outcome == RETRY


@pytest.mark.parametrize("sample", [s for s in REAL if s.outcome == FAIL], ids=lambda sample: sample.id)
def test_nothing_is_given_up_for_what_does_not_stand_in_the_command_line(sample: Sample) -> None:
    end = end_of(sample).replaced(command=("/usr/bin/ffmpeg", "-xabc", "my_nosuch", "{output}"))
    names_nothing = {"a file name without a known muxer, 5.1", "a file name without a known muxer, 7.1",
                     "no output file, both", "option, both", "an option without its argument, both"}  # fmt: skip
    assert (classify(end).outcome == FAIL) == (sample.id in names_nothing)


def test_a_crash_without_words_says_its_status() -> None:
    assert classify_sample(Sample("", "", "crash", RETRY, 134)).reason == "FFmpeg exited with 134"


@pytest.mark.parametrize("source", ["", ENDS])
@pytest.mark.parametrize("frames", [0, 100])
@pytest.mark.parametrize("message", HARMLESS)
def test_harmless_messages_explain_no_end(message: str, frames: int, source: str) -> None:
    log = f"[videomaster @ 0x5581d2b0c0c0] [error] the true reason\n[videomaster @ 0x1] [warning] {message}"
    cause = classify_sample(Sample("", log, "crash", RETRY, 1, frames, source))
    assert (cause.name, cause.reason) == ("crash", "FFmpeg exited with 1: the true reason")


@pytest.mark.parametrize("status", [0, 1])
def test_failed_to_stop_stream_alone_says_nothing(status: int) -> None:
    sample = Sample("", "[videomaster @ 0x1] [error] Failed to stop stream", "", "", status, 9, ENDS)
    cause = classify_sample(sample)
    assert (cause.name, "stop stream" in cause.reason) == ("crash" if status else "ended", False)


@pytest.mark.parametrize("frames", [0, 100])
@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.outcome == WAIT], ids=lambda sample: sample.id)
def test_a_test_source_never_has_no_signal(sample: Sample, frames: int) -> None:
    cause = classify_sample(sample._replace(without_signal="", frames=frames))
    assert cause.outcome == RETRY
    assert "signal" not in cause.name


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.outcome == FAIL], ids=lambda sample: sample.id)
def test_nothing_is_given_up_once_a_frame_was_recorded(sample: Sample) -> None:
    """The arguments have just worked: whatever FFmpeg says, a retry may help."""
    assert classify_sample(sample._replace(frames=1)).outcome == RETRY


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.id)
def test_the_same_words_at_a_harmless_level_explain_nothing(sample: Sample) -> None:
    end = end_of(sample)
    name = classify(end.replaced(lines=tuple((6, text) for _, text in end.lines))).name
    # The dynamic loader knows no levels.
    assert name in ("killed", "ended", "crash") or name == sample.name == "library missing"


@pytest.mark.parametrize("status", [0, -9, -15])
@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.outcome == FAIL], ids=lambda sample: sample.id)
def test_nothing_is_given_up_that_did_not_end_by_itself_with_an_error(sample: Sample, status: int) -> None:
    """Killed while it warned of something, or ended well: the words do not say that it can never work."""
    cause = classify_sample(sample._replace(status=status))
    assert cause.outcome == RETRY
    # What cannot be in a container is known of a copy too, which may be of another source the next time.
    assert cause.name in ("killed" if status else "crash", "not for the container")


@pytest.mark.parametrize("status", [0, 1, 234, -9])
@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.outcome == FAIL], ids=lambda sample: sample.id)
def test_nothing_is_given_up_for_a_warning(sample: Sample, status: int) -> None:
    end = end_of(sample)
    lines = tuple((4, text) for _, text in end.lines)
    assert classify(end.replaced(status=status, lines=lines)).outcome == RETRY


@pytest.mark.parametrize(
    "fault",
    [
        Fault(NO_FRAME, "no frame within 30 s of FFmpeg's start"),
        Fault(FORMAT_CHANGED, "format changed: Reconfiguring filter graph"),
        Fault(MISPLACED, "directory moved: the path of /srv/recordings/a.mkv leads to another directory now"),
        Fault(FILE_DELETED, "file deleted: /srv/recordings/a.mkv was removed while it was recorded"),
        Fault(NOT_EXECUTED, "/usr/bin/ffmpeg cannot be executed: No such file or directory"),
    ],
    ids=lambda fault: fault.kind,
)
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.id)
def test_a_fault_that_the_runner_found_needs_no_explanation(sample: Sample, fault: Fault) -> None:
    cause = classify(end_of(sample).replaced(fault=fault))
    assert (cause.outcome, cause.reason) == (RETRY, fault.text)


STALL = Fault(STALLED, "stalled: no new frame for 12 s")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.id)
def test_a_stall_is_what_ffmpeg_says_of_a_signal_or_a_disk(sample: Sample) -> None:
    """A cable pulled: FFmpeg says so after 10 s, and may still be closing its file when the runner's 12 s are over."""
    cause = classify(end_of(sample).replaced(fault=STALL))
    if sample.outcome == WAIT or sample.name in ("disk", "disk full", "disk error", "board missing", "board fault"):
        assert (cause.name, cause.outcome) == (sample.name, sample.outcome)
    else:
        assert (cause.outcome, cause.reason) == (RETRY, STALL.text)


def test_a_stall_is_a_lost_signal_whatever_else_was_said_and_however_ffmpeg_ended() -> None:
    log = """
[rawvideo @ 0x55d1] [error] Invalid buffer size, packet size 414720 < expected frame_size 4147200
[videomaster @ 0x5581d2b0c0c0] [error] Timeout while waiting for slot lock
[videomaster @ 0x5581d2b0c0c0] [error] Failed to get data buffers
"""
    for status in (0, 255, 251, -9):
        end = end_of(Sample("", log, "", "", status, 750, ENDS))
        end = end.replaced(fault=STALL)
        assert (classify(end).name, classify(end).outcome) == ("signal lost", WAIT)


def test_a_refused_packet_is_shown() -> None:
    sample = next(sample for sample in SAMPLES if sample.id == "a packet that the muxer refuses, 7.1")
    assert classify_sample(sample).reason == "FFmpeg exited with 234: Error muxing a packet"


def test_permissions_devices_boards_disks_and_networks_are_always_retried() -> None:
    for row in TABLE:
        if row.name != "cannot work":
            assert row.outcome != FAIL, row.name
        else:
            assert row.needs_frames is False


WORDS = st.sampled_from([pattern for row in TABLE for pattern in row.patterns] + [*HARMLESS, "[", "[a @ 0x", "]", ""])


@given(
    lines=st.lists(st.tuples(st.integers(0, 7), st.one_of(WORDS, st.text(max_size=30)).map(str.strip)), max_size=6),
    status=st.integers(-64, 255),
    frames=st.integers(0, 10**6),
    source=st.sampled_from(["", ENDS, SEARCHES]),
)
def test_any_end_has_a_cause_and_a_reason(lines: list[tuple[int, str]], status: int, frames: int, source: str) -> None:
    cause = classify(End(status=status, frames=frames, lines=tuple(lines), without_signal=source))
    assert cause.outcome in (RETRY, WAIT, FAIL)
    assert cause.name and cause.reason
    assert cause.outcome != FAIL or (frames == 0 and status > 0 and any(priority <= 3 for priority, _ in lines))
    assert cause.outcome != WAIT or source in (ENDS, SEARCHES)
