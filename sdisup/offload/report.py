"""How far copying is, target by target, for `sdisup offload`: from the ledgers, and from what the processes say."""

from __future__ import annotations

from sdisup.contract.applied import Applied, AppliedOffload
from sdisup.contract.files import RUN_DIRECTORY, Unreadable, boot_id
from sdisup.contract.records import Record
from sdisup.ledger.lines import LEDGER_DIRECTORY, Problem, ledger_path, read_ledger
from sdisup.ledger.present import with_ledgers
from sdisup.offload.plan import Known, Recorded, in_order
from sdisup.offload.state import GONE, Going, State, Trouble, is_running, load_state, problems_of


class Report(Record):
    """A target's: what is copied, what waits, what is being copied, and what is wrong. `failed` are files that have a
    trouble of their own, `gone` how many files are not there any more."""

    offload: AppliedOffload
    copied: list[Recorded]
    waiting: list[Recorded]
    going: Going | None
    problems: list[str]
    failed: list[tuple[Recorded, Trouble]]
    gone: int


def reports(applied: Applied, ledger: str = LEDGER_DIRECTORY, run: str = RUN_DIRECTORY) -> list[Report]:
    """One for each target."""
    return [_report(offload, applied, ledger, run) for offload in applied.offloads]


def _report(offload: AppliedOffload, applied: Applied, ledger: str, run: str) -> Report:
    try:
        state, problems = load_state(offload.name, run), []
        problems = problems_of(offload.name, state)
    except Unreadable as error:
        state, problems = State(boot_id()), [str(error)]
    ports = with_ledgers(applied, ledger).ports
    known = [_known(offload, index, ledger, state) for index in ports if index in (offload.ports or ports)]
    files = state.files or {}
    waiting = in_order(file for port in known for file in port.waiting())
    troubles = [(file, files[file.path]) for file in waiting if file.path in files]
    gone = sum(trouble.kind == GONE for _, trouble in troubles)
    return Report(
        offload,
        in_order(file for port in known for file in port.copied()),
        [file for file in waiting if file.path not in files or files[file.path].kind != GONE],
        state.going if state.going and is_running(state.going, offload.name) else None,
        problems,
        [(file, trouble) for file, trouble in troubles if not trouble.kind],
        gone,
    )


def _known(offload: AppliedOffload, index: int, ledger: str, state: State) -> Known:
    known = Known(offload.name, index)
    for entry in read_ledger(ledger_path(index, ledger)):
        if not isinstance(entry, Problem):
            known.add(entry)
    for entered in state.entered:
        if entered.port_index == index:
            known.add({
                "kind": "copy", "target": offload.name, "path": entered.path, "bytes": entered.size_bytes,
                "recorded": entered.recorded, "copy": entered.copy,
            })  # fmt: skip
    return known
