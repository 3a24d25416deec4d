"""`sdisup retention` as tables for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator

from sdisup.cli.tables import printable
from sdisup.cli.words import LocalTexts
from sdisup.contract.files import utc_text
from sdisup.contract.retention import Report, size_text
from sdisup.retention.survey import Survey


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
    yield f"{len(deletions)} of {found.files} finished files would be deleted, {size}"


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
    document = {"deletions": deletions, "files": found.files, "problems": list(found.problems().values())}
    return json.dumps(document, ensure_ascii=False, indent=2)


def report_text(report: Report) -> str:
    document = {
        "deleted": report.deleted,
        "deleted_bytes": report.deleted_bytes,
        "problems": list(report.problems.values()),
    }
    return json.dumps(document, ensure_ascii=False, indent=2)
