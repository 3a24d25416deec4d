"""Whether two ports' files could get one name, by their templates. Pure.

Names do not differ by capitals alone, since they are the same for a Windows share.
"""

from __future__ import annotations

import string

from sdisup.contract.names import COUNTER, SAMPLES, SEGMENT, shape
from sdisup.contract.records import Record

_WORDS = {
    "take": frozenset(string.ascii_lowercase + string.digits + "._-"),
    "codec": frozenset(string.ascii_lowercase + string.digits + "_"),
}
_DIGITS, _SIGNS = frozenset(string.digits), frozenset("+-")


class Step(Record):
    """One character of a path, or where `is_repeated` some: any of these, for example this one."""

    characters: frozenset[str]
    example: str
    is_repeated: bool = False


class Paths(Record):
    """All paths that a port's files may have, without their endings; `ends` are the steps before which one may end."""

    steps: tuple[Step, ...]
    ends: frozenset[int]


def paths_of(template: str, port_index: int, name: str, directory: str = "") -> Paths:
    """Those of a port's template, in a directory or relative to one."""
    steps = _literal(f"{directory}/" if directory else "")
    for text, field in shape(template, {"port": port_index, "name": name}):
        steps += _literal(text)
        if field in (COUNTER, SEGMENT):
            steps += [*[Step(_DIGITS, digit) for digit in "000"], Step(_DIGITS, "1", is_repeated=True)]
        elif field in SAMPLES:
            steps += [_moment(character) for character in SAMPLES[field]]
        elif field:
            steps.append(Step(_WORDS[field], "a", is_repeated=True))
    end = len(steps)
    if f"{{{COUNTER}}}" in template:
        return Paths(tuple(steps), frozenset([end]))
    # The second file of a name has a number.
    return Paths((*steps, *_literal("_"), Step(_DIGITS, "2", is_repeated=True)), frozenset([end, end + 2]))


def _literal(text: str) -> list[Step]:
    return [Step(frozenset(character.lower()), character) for character in text]


def _moment(character: str) -> Step:
    if character.isdigit():
        return Step(_DIGITS, character)
    return Step(_SIGNS if character == "+" else frozenset(character.lower()), character)


def common_path(one: Paths, other: Paths) -> str:
    """A path that both have; "" if there is none. It tries each way through both, a character after the other."""
    seen = {(0, 0)}
    ways = [(0, 0, "")]
    while ways:
        at, other_at, text = ways.pop()
        if at in one.ends and other_at in other.ends:
            return text
        if at == len(one.steps) or other_at == len(other.steps):
            continue
        step, other_step = one.steps[at], other.steps[other_at]
        both = step.characters & other_step.characters
        if not both:
            continue
        character = next((x for x in (step.example, other_step.example) if x.lower() in both), min(both))
        for next_at in (at + 1, *([at] if step.is_repeated else [])):
            for next_other in (other_at + 1, *([other_at] if other_step.is_repeated else [])):
                if (next_at, next_other) not in seen:
                    seen.add((next_at, next_other))
                    ways.append((next_at, next_other, text + character))
    return ""
