"""`sdisup retention` as tables for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from sdisup.cli.tables import printable
from sdisup.cli.words import LocalTexts
from sdisup.contract.files import utc_text
from sdisup.contract.retention import Report, size_text
from sdisup.control.protect import Covered, words_of
from sdisup.retention.survey import Survey

NOTHING = "-"


def plan_lines(found: Survey) -> Iterator[str]:
    """What would go now, and why: a line a file, and their sum."""
    local = LocalTexts().text
    deletions = found.plan.deletions
    rules = max((len(one.why) for one in deletions), default=4)
    if deletions:
        yield f"{'PORT':>4}  {'END':<25}  {'SIZE':>8}  {'RULE':<{rules}}  FILE"
    for one in deletions:
        file = one.file
        end = local(utc_text(file.end))
        words = f"{end}  {size_text(file.size_bytes):>8}  {one.why:<{rules}}  {printable(file.path)}"
        yield f"{file.port_index:>4}  {words}"
    size = size_text(sum(one.file.size_bytes for one in deletions))
    yield f"{len(deletions)} of {len(found.files)} finished files would be deleted, {size}"


def plan_text(found: Survey) -> str:
    deletions = [
        {
            "port_index": one.file.port_index,
            "path": one.file.path,
            "end": utc_text(one.file.end),
            "bytes": one.file.size_bytes,
            "rule": one.why,
        }
        for one in found.plan.deletions
    ]
    document = {"deletions": deletions, "files": len(found.files), "problems": list(found.problems().values())}
    return json.dumps(document, ensure_ascii=False, indent=2)


def report_text(report: Report) -> str:
    document = {
        "deleted": report.deleted,
        "deleted_bytes": report.deleted_bytes,
        "problems": list(report.problems.values()),
    }
    return json.dumps(document, ensure_ascii=False, indent=2)


def protection_lines(found: Sequence[Covered]) -> Iterator[str]:
    """A line a protection. FILES are those that the ledgers have of it now."""
    local = LocalTexts().text
    width = max((len(words_of(one.protection)) for one in found), default=4)
    if found:
        yield f"{'ID':>4}  {'WHAT':<{width}}  {'SINCE':<25}  {'UNTIL':<25}  {'FILES':>6}  {'SIZE':>8}  BY, REASON"
    for one in found:
        known = one.protection
        since, until = (local(text).ljust(25) if text else f"{NOTHING:<25}" for text in (known.since, known.until))
        why = ": ".join(filter(None, (known.by, known.reason)))
        missing = f"; {one.missing} of them removed by somebody else" if one.missing else ""
        what = printable(words_of(known)).ljust(width)
        counts = f"{one.files:>6}  {size_text(one.size_bytes):>8}"
        yield f"{known.name:>4}  {what}  {since}  {until}  {counts}  {printable(why)}{missing}"


def protections_text(found: Sequence[Covered]) -> str:
    documents = []
    for one in found:
        known = one.protection
        document: dict[str, object] = {"id": known.name, "path": known.path or None, "take": known.take or None}
        document |= {"port_index": known.port_index, "since": known.since or None, "until": known.until or None}
        document |= {"reason": known.reason, "by": known.by, "at": known.at, "files": one.files}
        documents.append({**document, "bytes": one.size_bytes, "missing": one.missing})
    return json.dumps(documents, ensure_ascii=False, indent=2)
