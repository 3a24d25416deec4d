#!/usr/bin/env python3
"""An rclone for tests: its remotes are directories, and it misbehaves as MISBEHAVE in its environment says.

It answers what sdisup/offload/remote.py asks, as rclone 1.60.1 does; tests/unit/test_rclone.py compares it with the
real one. Each command is noted in the file that CALLS names, with its process. MISBEHAVE is words such as `rcat:hang`:

fail            says something with a password in it, and ends with 1
hang            does nothing for ever
late            reads a little, then nothing for ever
fail-after      does its work, then ends with 1
nothing         ends with 0 and has done nothing
half            writes or reads half of the content
damage          writes something else of the same length
no-hash         has no digest of anything
other-hash      has digests of something else
no-rename       has neither a move nor a copy
buckets         takes any prefix for a directory
"""

from __future__ import annotations

import os
import sys
import time

# Nothing else at once: each command of a test starts it anew.


def misbehaves(verb: str, what: str) -> bool:
    return f"{verb}:{what}" in os.environ.get("MISBEHAVE", "").split()


def path_of(target: str) -> str:
    return f"{os.environ['REMOTE']}/{target.partition(':')[2]}"


def read(target: str) -> bytes:
    with open(path_of(target), "rb") as file:
        return file.read()


def lsjson(words: list[str], options: list[str]) -> int:
    path = path_of(words[0])
    if os.path.isdir(path) or (misbehaves("backend", "buckets") and not os.path.exists(path)):
        print('{"Path": "", "Name": "", "Size": -1, "IsDir": true}')
        return 0
    if not os.path.exists(path):
        sys.stderr.write("2026/01/31 12:00:00 Failed to lsjson: directory not found\n")
        return 3
    content = read(words[0])
    kinds = [option.partition("=")[2] for option in options if option.startswith("--hash-type=")]
    hashes = ""
    if kinds and not misbehaves("lsjson", "no-hash"):
        import hashlib

        of = b"else" if misbehaves("lsjson", "other-hash") else content
        hashes = f', "Hashes": {{"{kinds[0]}": "{hashlib.new(kinds[0], of).hexdigest()}"}}'
    print(f'{{"Path": "a", "Name": "a", "Size": {len(content)}, "IsDir": false{hashes}}}')
    return 0


def rcat(words: list[str], options: list[str]) -> int:
    if misbehaves("rcat", "late"):
        sys.stdin.buffer.read(10)
        time.sleep(1000)
    content = sys.stdin.buffer.read()
    if misbehaves("rcat", "half"):
        content = content[: len(content) // 2]
    if misbehaves("rcat", "damage"):
        content = bytes(len(content))
    path = path_of(words[0])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return 0


def cat(words: list[str], options: list[str]) -> int:
    content = read(words[0])
    if misbehaves("cat", "half"):
        content = content[: len(content) // 2]
    sys.stdout.buffer.write(content[: 10 if misbehaves("cat", "late") else len(content)])
    sys.stdout.buffer.flush()
    if misbehaves("cat", "late"):
        time.sleep(1000)
    return 0


def moveto(words: list[str], options: list[str]) -> int:
    former, final = map(path_of, words)
    if not (os.path.exists(final) and "--ignore-existing" in options):
        os.rename(former, final)
    return 0


def deletefile(words: list[str], options: list[str]) -> int:
    os.unlink(path_of(words[0]))
    return 0


def json(value: bool) -> str:
    return str(value).lower()


def backend(words: list[str], options: list[str]) -> int:
    can, buckets = not misbehaves("backend", "no-rename"), misbehaves("backend", "buckets")
    hashes = "" if misbehaves("backend", "no-hash") else '"md5", "sha1"'
    features = f'"BucketBased": {json(buckets)}, "Move": {json(can)}, "Copy": false'
    print(f'{{"Name": "nas", "Hashes": [{hashes}], "Features": {{{features}}}}}')
    return 0


def main() -> int:
    options = [word for word in sys.argv[1:] if word.startswith("--")]
    verb, *words = [word for word in sys.argv[1:] if not word.startswith("--")]
    with open(os.environ["CALLS"], "a", encoding="utf-8") as calls:
        calls.write(" ".join([verb, *words, str(os.getpid())]) + "\n")
    if misbehaves(verb, "hang"):
        time.sleep(1000)
    if misbehaves(verb, "fail"):
        at = "2026/01/31 12:00:00"
        sys.stderr.write(f"{at} ERROR : a\n{at} Failed: https://me:hunter22@nas refused x7secret\n")
        return 1
    if misbehaves(verb, "nothing"):
        return 0
    code = {f.__name__: f for f in (lsjson, rcat, cat, moveto, deletefile, backend)}[verb](words, options)
    return 1 if misbehaves(verb, "fail-after") else code


if __name__ == "__main__":
    sys.exit(main())
