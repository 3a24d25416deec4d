"""Files are copied to a remote of rclone's, whatever rclone does; by a stand-in, and with --slow by the real one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fakerclone
import pytest
import s3
import test_offload_main as offload
from test_offload_copying import CONTENT, PATH, UNFINISHED, Bench

from sdisup.contract.files import monotonic
from sdisup.offload import main as module
from sdisup.offload.copying import HASH, READ_BACK, Copied, Standing, copy
from sdisup.offload.digests import Digest
from sdisup.offload.remote import Limits, Remote, secrets_in
from sdisup.offload.source import FileProblem, TargetProblem

QUICK = Limits(ask_s=20.0, idle_s=20.0, interrupt_s=0.5)
CONFIGURATION = "[nas]\ntype = sftp\nhost = nas\nuser = recorder\npass = x7secret\n"


class RemoteBench(Bench):
    """A bench whose target is a remote of the stand-in's."""

    def __init__(self, top: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__(top)
        self.patch, self.calls = patch, top / "calls"
        self.configuration = top / "rclone.conf"
        self.configuration.write_text(CONFIGURATION)
        self.rclone = top / "rclone"
        self.rclone.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {fakerclone.__file__} "$@"\n')
        self.rclone.chmod(0o755)
        patch.setenv("REMOTE", str(top))
        patch.setenv("CALLS", str(self.calls))

    def misbehave(self, *what: str) -> None:
        self.patch.setenv("MISBEHAVE", " ".join(what))

    def remote(self, limits: Limits = QUICK) -> Remote:
        return Remote("nas:target", str(self.configuration), str(self.rclone), limits)

    def run(self, limits: Limits = QUICK) -> Copied:
        with self.source() as source:
            return copy(self.remote(limits), source, PATH, UNFINISHED)

    def verbs(self) -> list[str]:
        return [line.split()[0] for line in self.calls.read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteBench]:
    yield RemoteBench(tmp_path, monkeypatch)


def test_a_file_is_copied_and_verified_by_the_targets_digest(bench: RemoteBench) -> None:
    done = bench.run()
    assert (done.path, done.verified, done.digest[:5]) == (PATH, HASH, "sha1:")
    assert bench.names() == [PATH] and bench.copy.read_bytes() == CONTENT
    assert "cat" not in bench.verbs()


@pytest.mark.parametrize("misbehaviour", ["backend:no-hash", "lsjson:no-hash", "lsjson:other-hash"])
def test_without_a_digest_that_says_so_it_is_read_back(bench: RemoteBench, misbehaviour: str) -> None:
    bench.misbehave(misbehaviour)
    assert bench.run().verified == READ_BACK
    assert bench.names() == [PATH] and bench.copy.read_bytes() == CONTENT


@pytest.mark.parametrize("misbehaviour", ["rcat:fail-after", "moveto:fail-after", "deletefile:fail-after"])
def test_the_target_is_believed_and_no_exit_code(bench: RemoteBench, misbehaviour: str) -> None:
    bench.misbehave(misbehaviour)
    bench.stand(b"left", UNFINISHED)
    bench.run()
    assert bench.names() == [PATH] and bench.copy.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("misbehaviour", "text"),
    [
        ("rcat:nothing", "is not there after it was written"),
        ("rcat:half", "has 1536000 bytes after it was written"),
        ("rcat:damage", "differs from the file"),
        ("moveto:nothing", "has not got its name"),
        ("moveto:fail", "refused"),
        ("rcat:fail", "refused"),
    ],
)
def test_what_was_not_copied_is_no_copy(bench: RemoteBench, misbehaviour: str, text: str) -> None:
    bench.misbehave(misbehaviour)
    with pytest.raises(FileProblem, match=text):
        bench.run()
    assert PATH not in bench.names()
    # What is left stands in nobody's way.
    bench.misbehave()
    bench.run()
    assert bench.names() == [PATH] and bench.copy.read_bytes() == CONTENT


def test_what_is_read_back_short_is_no_copy(bench: RemoteBench) -> None:
    bench.misbehave("backend:no-hash", "cat:half")
    with pytest.raises(FileProblem, match="differs"):
        bench.run()
    assert bench.names() == []


@pytest.mark.parametrize("content", [b"", b"other", CONTENT[:-1] + b"x"])
def test_what_else_stands_there_is_left_as_it_is(bench: RemoteBench, content: bytes) -> None:
    bench.stand(content)
    with pytest.raises(FileProblem, match="left as it is"):
        bench.run()
    assert bench.names() == [PATH] and bench.copy.read_bytes() == content
    assert not {"rcat", "moveto", "deletefile"} & set(bench.verbs())


def test_what_comes_to_stand_there_meanwhile_is_left_as_it_is(bench: RemoteBench) -> None:
    remote = bench.remote()
    remote.write(UNFINISHED, bench.source(), Digest("md5"))
    bench.stand(b"somebody's")
    assert not remote.rename(UNFINISHED, PATH, len(CONTENT))
    assert bench.copy.read_bytes() == b"somebody's"


def test_a_copy_that_was_made_and_not_entered_is_recognized(bench: RemoteBench) -> None:
    bench.stand(CONTENT)
    assert bench.run().was_there
    assert "rcat" not in bench.verbs()


def test_a_directory_stands_there(bench: RemoteBench) -> None:
    bench.copy.mkdir(parents=True)
    with pytest.raises(FileProblem, match="something stands at"):
        bench.run()


def test_a_remote_of_buckets_calls_anything_a_directory(bench: RemoteBench) -> None:
    bench.misbehave("backend:buckets")
    bench.run()
    assert bench.names() == [PATH]
    assert bench.remote().look(PATH) == Standing(len(CONTENT)) and bench.remote().look("box") is None


@pytest.mark.parametrize("misbehaviour", ["backend:fail", "lsjson:fail", "cat:fail backend:no-hash"])
def test_a_target_that_does_not_answer(bench: RemoteBench, misbehaviour: str) -> None:
    bench.misbehave(misbehaviour)
    with pytest.raises(TargetProblem) as raised:
        bench.run()
    assert PATH not in bench.names()
    # On one line, and nothing that gives access.
    assert str(raised.value) == "Failed: https://***@nas refused ***"


def test_a_target_that_cannot_rename_is_none(bench: RemoteBench) -> None:
    bench.misbehave("backend:no-rename")
    with pytest.raises(TargetProblem, match="cannot rename"):
        bench.run()
    assert bench.names() == []


SELDOM = [
    pytest.param(misbehaviour, marks=pytest.mark.slow)
    for misbehaviour in ("backend:hang", "lsjson:hang", "moveto:hang", "cat:late backend:no-hash")
]
"""Each takes a second of nothing."""


@pytest.mark.parametrize("misbehaviour", ["rcat:late", *SELDOM])
def test_an_rclone_that_hangs_is_ended(bench: RemoteBench, misbehaviour: str) -> None:
    bench.misbehave(misbehaviour)
    verb = misbehaviour.partition(":")[0]
    began = monotonic()
    with pytest.raises(TargetProblem, match="ended"):
        bench.run(Limits(ask_s=1.0, idle_s=1.0, per_byte_s=0.0, interrupt_s=0.1))
    # Never as long as the stand-in hangs.
    assert monotonic() - began < 500
    assert bench.verbs()[-1] == verb and PATH not in bench.names()
    pid = int(bench.calls.read_text().split()[-1])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_no_rclone(bench: RemoteBench) -> None:
    bench.rclone.unlink()
    with pytest.raises(TargetProblem, match="apt-get install rclone"):
        bench.run()


def test_no_credentials(bench: RemoteBench) -> None:
    bench.configuration.unlink()
    with pytest.raises(TargetProblem, match=r"rclone\.conf: No such file"):
        bench.run()


def test_a_remote_that_is_not_in_the_credentials(bench: RemoteBench) -> None:
    bench.configuration.write_text("# none")
    with pytest.raises(TargetProblem, match=r"rclone\.conf is not there, or has no section \[nas\]"):
        bench.run()


def test_what_nobody_is_to_read() -> None:
    assert secrets_in(CONFIGURATION) == ("x7secret",)


def test_an_rclone_that_is_killed(bench: RemoteBench) -> None:
    """As by the OOM killer, while it reads."""
    bench.rclone.write_text(f"#!/bin/sh\ncase $* in *rcat*) kill -{signal.SIGKILL:d} $$;; esac\n"
                            f"exec {sys.executable} -I -S {fakerclone.__file__} \"$@\"\n")  # fmt: skip
    with pytest.raises(FileProblem, match="rclone ended with -9"):
        bench.run()


# ---- The real one ----


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("rclone"), reason="no rclone is installed: apt-get install rclone")
class TestTheRealOne:
    """What the stand-in answers is what rclone answers."""

    @pytest.fixture
    def real(self, bench: RemoteBench) -> RemoteBench:
        bench.rclone = Path(shutil.which("rclone") or "")
        bench.configuration.write_text(f"[nas]\ntype = alias\nremote = {bench.target.parent}\n")
        return bench

    def test_a_file_is_copied(self, real: RemoteBench) -> None:
        real.stand(b"left", UNFINISHED)
        assert real.run().verified == HASH
        assert real.names() == [PATH] and real.copy.read_bytes() == CONTENT
        assert real.run().was_there

    def test_what_stands_there_is_left(self, real: RemoteBench) -> None:
        real.stand(b"other")
        with pytest.raises(FileProblem, match="left as it is"):
            real.run()
        remote = real.remote()
        remote.write(UNFINISHED, real.source(), Digest("md5"))
        assert not remote.rename(UNFINISHED, PATH, len(CONTENT))
        assert real.copy.read_bytes() == b"other"
        remote.remove(UNFINISHED)
        remote.remove(UNFINISHED)
        assert real.names() == [PATH]

    def test_it_reads_back(self, real: RemoteBench) -> None:
        real.stand(CONTENT)
        assert b"".join(real.remote().read(PATH, len(CONTENT))) == CONTENT
        with pytest.raises(TargetProblem):
            b"".join(real.remote().read("none", 1))


# ---- S3 ----


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    with s3.serving(tmp_path_factory.mktemp("moto") / "log") as server:
        yield server


@pytest.mark.slow
@pytest.mark.limit(600)
@pytest.mark.skipif(not shutil.which("rclone"), reason="no rclone is installed: apt-get install rclone")
class TestS3:
    """Against a server of its own on the loopback, with Debian's rclone."""

    @pytest.fixture
    def bucket(self, bench: RemoteBench, server: s3.Server, request: pytest.FixtureRequest) -> S3Bench:
        return S3Bench(bench, server, f"s3:bucket-{abs(hash(request.node.name))}")

    def test_a_file_is_verified_by_the_servers_digest(self, bucket: S3Bench) -> None:
        done = bucket.run()
        assert (done.verified, done.digest[:4]) == (HASH, "md5:")
        assert bucket.names() == [PATH] and bucket.read(PATH) == CONTENT
        assert bucket.run().was_there

    def test_a_file_in_parts_is_read_back(self, bucket: S3Bench) -> None:
        """What rclone's exit code says of it, this server makes wrong."""
        bucket.configure(upload_cutoff="1M")
        bucket.bench.file.write_bytes(CONTENT * 3)
        assert bucket.run().verified == READ_BACK
        assert bucket.names() == [PATH] and bucket.read(PATH) == CONTENT * 3

    @pytest.mark.parametrize("content", [b"", b"other", CONTENT[:-1] + b"x"])
    def test_what_stands_there_is_left(self, bucket: S3Bench, content: bytes) -> None:
        bucket.put(PATH, content)
        with pytest.raises(FileProblem, match="left as it is"):
            bucket.run()
        assert bucket.names() == [PATH] and bucket.read(PATH) == content

    def test_what_comes_to_stand_there_meanwhile_is_left(self, bucket: S3Bench) -> None:
        remote = bucket.remote()
        remote.write(UNFINISHED, bucket.bench.source(), Digest("md5"))
        bucket.put(PATH, b"somebody's")
        assert not remote.rename(UNFINISHED, PATH, len(CONTENT))
        assert bucket.read(PATH) == b"somebody's"

    def test_what_an_interrupted_copy_left_is_removed(self, bucket: S3Bench) -> None:
        bucket.put(UNFINISHED, CONTENT[:1000])
        bucket.run()
        assert bucket.names() == [PATH] and bucket.read(PATH) == CONTENT

    def test_a_server_that_is_not_there_and_comes_back(self, bucket: S3Bench) -> None:
        there = bucket.configuration
        bucket.configuration = there.replace(str(bucket.server.port), "1")
        with pytest.raises(TargetProblem) as raised:
            bucket.run()
        assert "refused" in str(raised.value) and "x7" not in str(raised.value)
        bucket.configuration = there
        bucket.run()
        assert bucket.names() == [PATH]

    def test_an_upload_that_is_killed_leaves_no_copy(self, bucket: S3Bench) -> None:
        with bucket.bench.source() as source, pytest.raises(KeyboardInterrupt):

            def interrupt(_: str, done: int) -> None:
                if done > 1 << 20:
                    raise KeyboardInterrupt

            source.told = interrupt
            copy(bucket.remote(), source, PATH, UNFINISHED)
        assert PATH not in bucket.names()
        bucket.run()
        assert bucket.names() == [PATH] and bucket.read(PATH) == CONTENT


@pytest.mark.slow
@pytest.mark.limit(600)
@pytest.mark.skipif(not shutil.which("rclone"), reason="no rclone is installed: apt-get install rclone")
def test_a_server_that_dies_while_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = offload.Bench(tmp_path, monkeypatch)
    names = [f"{number}.mp4" for number in range(5)]
    for number, name in enumerate(names):
        bench.record(name, CONTENT + bytes([number]), end=f"12:1{number}:00")
    going = module._Run._going
    with s3.serving(tmp_path / "log") as server:
        (tmp_path / "rclone.conf").write_text(server.configuration())
        connect = partial(Remote, "s3:archive", str(tmp_path / "rclone.conf"), limits=QUICK)

        def dies(self: Any, file: Any, doing: str, done: int) -> None:
            if file.path.endswith("2.mp4") and done:
                server.stop()
            going(self, file, doing, done)

        monkeypatch.setattr(module._Run, "_going", dies)
        bench.run(connect)
        assert [os.path.basename(event["path"]) for event in bench.told()] == names[:2]
        assert len(bench.said) == 1 and "refused" in bench.said[0], bench.said
        monkeypatch.undo()
        offload.Bench.freeze(bench, monkeypatch)
        server.start()
        server.wait()
        bench.now += 4000
        bench.run(connect)
        bench.now += 4000
        bench.run(connect)
        # What the ledger has is not copied again, though this server has lost it.
        assert [os.path.basename(event["path"]) for event in bench.told()] == names
        for event in bench.told()[2:]:
            content = b"".join(connect().read(event["copy"], event["size_bytes"]))
            assert content == Path(event["path"]).read_bytes()


class S3Bench:
    """A bench whose target is a bucket."""

    def __init__(self, bench: RemoteBench, server: s3.Server, target: str) -> None:
        self.bench, self.server, self.target = bench, server, target
        self.configuration = server.configuration()
        self._rclone("mkdir", target)

    def configure(self, **more: str) -> None:
        self.configuration = self.server.configuration(**more)

    def remote(self) -> Remote:
        self.bench.configuration.write_text(self.configuration)
        return Remote(self.target, str(self.bench.configuration))

    def run(self) -> Copied:
        with self.bench.source() as source:
            return copy(self.remote(), source, PATH, UNFINISHED)

    def put(self, path: str, content: bytes) -> None:
        self._rclone("rcat", f"--size={len(content)}", f"{self.target}/{path}", content=content)

    def read(self, path: str) -> bytes:
        return self._rclone("cat", f"{self.target}/{path}")

    def names(self) -> list[str]:
        return sorted(self._rclone("lsf", "-R", "--files-only", self.target).decode().split())

    def _rclone(self, *words: str, content: bytes = b"") -> bytes:
        self.bench.configuration.write_text(self.configuration)
        command = ["rclone", f"--config={self.bench.configuration}", *words]
        return subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout
