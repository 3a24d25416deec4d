"""Who may import whom: the table of docs/design.md, checked by the source and by running it.

A broken configuration, a missing library or an upgrade of the command must not stop a recording; and what
has to be quick must not load what it does not need.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fakebus import FakeBus

import sdisup
from sdisup.contract.files import boot_id
from sdisup.contract.status import PortStatus, write_status

PACKAGE = Path(sdisup.__file__).resolve().parent
TABLE = PACKAGE.parent / "docs" / "design.md"
ENTRIES = {"__init__", "__main__"}
"""The package's own two files: they are no room, and load the others only when they are asked for."""

# What a recording, and a look at it, must not pay for at every start (FACTS 5).
COSTLY = {"dataclasses", "typing", "subprocess", "threading", "asyncio", "logging", "pathlib", "tomllib", "jinja2",
          "pydbus", "gi", "argparse", "shutil", "socket"}  # fmt: skip
LEAN_ROOMS = {"contract", "ledger", "runner"}
LEAN_MODULES = {"control.observe"}


class Import(NamedTuple):
    """One import: the project's module (`contract.status`) or the library, and whether a function has to be called."""

    name: str
    is_ours: bool
    is_lazy: bool


def modules() -> list[str]:
    """All modules, as `contract.status`; a room's own `__init__` is empty and none."""
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(path.parts) for path in paths if len(path.parts) == 1 or path.name != "__init__")


MODULES = modules()


def room_of(module: str) -> str:
    return module.partition(".")[0]


@functools.cache
def table() -> dict[str, frozenset[str]]:
    """The table's rooms, each with what it may import."""
    section = TABLE.read_text().partition("## The rooms\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([a-z_.]+) \| [^|]+ \| ([a-z_., ]+) \|$", section, re.MULTILINE)
    found = {room: frozenset(names.replace("nothing", "").replace(",", " ").split()) for room, names in rows}
    del found["room"]  # the table's head
    return found


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(body: list[ast.stmt], is_lazy: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """All statements below `body` that run, and whether they wait for a function to be called."""
    for node in body:
        if is_type_checking(node):
            continue
        yield node, is_lazy
        inside = is_lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for _, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else []:
                if isinstance(child, ast.stmt):
                    yield from statements([child], inside)
                elif isinstance(child, ast.ExceptHandler | ast.match_case):
                    yield from statements(child.body, inside)


def our_module(name: str, attribute: str) -> str:
    """`from sdisup.contract import status` and `from sdisup.contract.status import …` as `contract.status`."""
    inner = f"{name}.{attribute}".removeprefix("sdisup.")
    return inner if inner in MODULES else name.removeprefix("sdisup.").replace("sdisup", "__init__")


@functools.cache
def imports_of(module: str) -> tuple[Import, ...]:
    found = []
    source = PACKAGE / f"{module.replace('.', '/')}.py"
    for node, is_lazy in statements(ast.parse(source.read_text()).body):
        if isinstance(node, ast.Import):
            for alias in node.names:
                is_ours = room_of(alias.name) == "sdisup"
                found.append(Import(alias.name.removeprefix("sdisup."), is_ours, is_lazy))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            name = node.module or ""
            is_ours = room_of(name) == "sdisup"
            for alias in node.names:
                found.append(Import(our_module(name, alias.name) if is_ours else name, is_ours, is_lazy))
    return tuple(found)


def ours(module: str, *, lazy: bool = True) -> set[str]:
    """The project's modules that a module imports; names of the package itself, such as __version__, are none."""
    return {
        entry.name
        for entry in imports_of(module)
        if entry.is_ours and entry.name not in ENTRIES and (lazy or not entry.is_lazy)
    }


def libraries(module: str) -> set[str]:
    """What a module imports of neither the project nor the standard library."""
    tops = {room_of(entry.name) for entry in imports_of(module) if not entry.is_ours}
    return tops - sys.stdlib_module_names


def reach(module: str) -> set[str]:
    """All of the project that a module may load, at its beginning or later."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += ours(name)
    return seen


def is_allowed(module: str, imported: str) -> bool:
    room = room_of(module)
    allowed = table()[room]
    return room_of(imported) in {room, *allowed} or imported in allowed


# ---- By the source ----


def test_the_table_names_every_room() -> None:
    assert set(table()) == {room_of(module) for module in MODULES} - ENTRIES


def test_every_room_is_installed() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {name.removeprefix("sdisup.") for name in project["tool"]["setuptools"]["packages"]} == {
        "sdisup", "units", *rooms
    }  # fmt: skip


def test_the_table_has_no_circle_and_no_arrow_back_up() -> None:
    rooms = {room: {room_of(name) for name in allowed} for room, allowed in table().items()}
    graphlib.TopologicalSorter(rooms).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", [module for module in MODULES if module not in ENTRIES])
def test_a_module_imports_what_its_room_may(module: str) -> None:
    assert {name for name in ours(module) if not is_allowed(module, name)} == set()


def test_nothing_imports_the_command_but_main() -> None:
    importers = {module for module in MODULES for name in ours(module) if room_of(name) == "cli"}
    assert {module for module in importers if room_of(module) != "cli"} == {"__main__"}


def test_what_records_needs_the_standard_library_alone() -> None:
    assert {name: libraries(name) for name in reach("runner.begin") if libraries(name)} == {}


def test_the_runner_loads_everything_before_it_records() -> None:
    """An upgrade underneath a running port must not mix versions."""
    lazy = [(name, entry.name) for name in reach("runner.begin") for entry in imports_of(name) if entry.is_lazy]
    assert lazy == [("runner.begin", "runner.main")]


def test_one_module_alone_knows_d_bus() -> None:
    assert [module for module in MODULES if {"pydbus", "gi"} & libraries(module)] == ["control.systemd"]
    systemd = [entry for entry in imports_of("control.systemd") if room_of(entry.name) in ("pydbus", "gi")]
    assert all(entry.is_lazy for entry in systemd)


def test_the_command_loads_what_is_slow_only_when_it_is_asked_for() -> None:
    at_once = {room_of(name) for name in ours("cli.main", lazy=False)}
    assert at_once <= {"contract", "errors", "cli"}


def test_the_package_and_errors_import_nothing() -> None:
    assert [entry for entry in imports_of("__init__") if not entry.is_lazy] == []
    assert [entry.name for entry in imports_of("errors")] == ["__future__"]


def test_nothing_imports_in_a_circle() -> None:
    sorter = graphlib.TopologicalSorter({module: ours(module, lazy=False) for module in MODULES})
    sorter.prepare()  # raises CycleError, which names the circle


# ---- By running ----


def run_fresh(program: str) -> list[str]:
    """What a program prints, in a Python as a unit starts it."""
    script = f"import sys\nsys.path.insert(0, {str(PACKAGE.parent)!r})\n{program}\n"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def loaded_by(program: str) -> set[str]:
    """The modules that a program has loaded at its end: ours as `contract.status`, others by their top's name."""
    names = run_fresh(f"{program}\nprint('\\n'.join(sys.modules))")
    mine = {name.removeprefix("sdisup.") for name in names if name.startswith("sdisup.")}
    return mine | {room_of(name) for name in names}


def lean_modules() -> list[str]:
    return [module for module in MODULES if room_of(module) in LEAN_ROOMS or module in LEAN_MODULES]


@pytest.mark.parametrize("module", lean_modules())
def test_what_has_to_be_quick_loads_nothing_costly(module: str) -> None:
    loaded = loaded_by(f"import sdisup.{module}")
    assert loaded & COSTLY == set()


TELL_THOSE_IN_PYTHON = """
print(*(name for name, it in sys.modules.items() if str(getattr(it, "__file__", "")).endswith(".py")))
"""


@pytest.mark.parametrize(("part", "module"), [("run", "runner.main"), ("ledger", "ledger.writer")])
def test_what_runs_for_ever_loads_the_least(part: str, module: str) -> None:
    """Each of json, re, enum, signal or collections would cost a runner memory, and its port time at the start."""
    program = f"""
from sdisup.__main__ import main
sys.argv = ["sdisup", {part!r}, "of", "three", "words"]
main()
"""
    bare = run_fresh(f"import __future__, os{TELL_THOSE_IN_PYTHON}")[-1].split()
    names = run_fresh(program + TELL_THOSE_IN_PYTHON)[-1].split()
    assert f"sdisup.{module}" in names
    assert {name for name in names if room_of(name) != "sdisup"} == set(bare)


BEFORE_THE_SPAWN = {
    "", "contract", "contract.disks", "contract.files", "contract.filesystem", "contract.lean", "contract.media",
    "contract.names", "contract.options", "contract.records", "contract.requests", "contract.status", "ledger",
    "ledger.lines", "ledger.moments", "ledger.spool", "runner", "runner.begin", "runner.command", "runner.disk",
    "runner.ffmpeg", "runner.memory", "runner.notify", "runner.unnamed", "runner.whereabouts",
}  # fmt: skip
"""Whatever is added here is loaded while nothing is recorded. begin.py says what belongs there."""
WATCHED = f"""
import gc, os, sys
gc.disable()
sys.path.insert(0, {str(PACKAGE.parent)!r})
from sdisup.runner import begin
def told(what, function):
    def called(*arguments, **more):
        if what != "ready" or "READY=1" in arguments:
            print(what, *sys.modules, *["collects"] * gc.isenabled(), flush=True)
        return function(*arguments, **more)
    return called
os.posix_spawnp = told("spawn", os.posix_spawnp)
os._exit = told("exit", os._exit)
begin.Notifier.send = told("ready", begin.Notifier.send)
begin.signal.pthread_sigmask(begin.signal.SIG_BLOCK, [begin.signal.SIGTERM, begin.signal.SIGINT])
begin.main(sys.argv[1:])
"""
PICTURE = "-f lavfi -i testsrc2=size=64x36:rate=25,realtime -c:v libx264 -preset ultrafast -g 5 -f matroska"


def test_a_runner_loads_the_rest_after_the_spawn_and_nothing_after_ready(tmp_path: Path) -> None:
    for name in ("port-3", "recordings"):
        (tmp_path / name).mkdir()
    command = [*"ffmpeg -hide_banner -loglevel repeat+level+info -nostats -progress pipe:2".split(), *PICTURE.split()]
    options = [f"--run-directory={tmp_path}", f"--recordings={tmp_path}/recordings", "--port=3"]
    python = [sys.executable, "-I", "-S", "-c", WATCHED, *options, "--", *command, "{output}"]
    environment = {**os.environ, "RUNTIME_DIRECTORY": f"{tmp_path}/port-3"}
    with subprocess.Popen(
        python, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as runner:
        assert runner.stdout is not None
        loaded = {}
        for line in runner.stdout:
            what, *names = line.split()
            loaded[what] = set(names)
            if what == "ready":
                runner.terminate()
    assert list(loaded) == ["spawn", "ready", "exit"]
    ours = {name.removeprefix("sdisup").removeprefix(".") for name in loaded["spawn"] if room_of(name) == "sdisup"}
    assert ours == BEFORE_THE_SPAWN
    assert {room_of(name) for name in loaded["ready"] - loaded["spawn"]} == {"sdisup", "resource", "collects"}
    assert "sdisup.runner.main" in loaded["ready"]
    assert loaded["exit"] == loaded["ready"]


@pytest.mark.parametrize("module", [module for module in MODULES if module not in ENTRIES])
def test_a_module_loads_only_rooms_that_its_room_may(module: str) -> None:
    """Run by itself, so that no module works only because another one was imported before it."""
    program = f"import sdisup.{module}"
    if libraries(module) or room_of(module) in ("control", "drill", "config", "encode", "cli"):
        # Those need the environment's libraries.
        program = f"sys.path[1:1] = {sys.path[1:]!r}\n{program}"
    names = {name for name in loaded_by(program) if name in MODULES} - ENTRIES
    rooms = {room_of(name) for name in names}
    allowed = {room_of(module), *map(room_of, table()[room_of(module)])}
    for room in list(allowed):
        allowed |= {room_of(name) for name in table()[room]}
    assert rooms - allowed == set()


def test_the_package_alone_is_nothing() -> None:
    assert loaded_by("import sdisup") & {"json", "errors", "typing", "re"} == set()


STATUS = """
import io
{prepare}
sys.stdout, plain = io.StringIO(), sys.stdout
code = cli.main({arguments!r})
output, sys.stdout = sys.stdout.getvalue(), plain
assert code in (0, 3), code
assert {expected!r} in output, output
"""
PREPARE = """
from sdisup.cli import main as cli
from sdisup.cli import status as command
from sdisup.contract import applied, status
from sdisup.control import observe
directory = {directory!r}
for module in (applied, observe, status):
    function = getattr(module, "read_status", None)
    if function is not None:
        module.read_status = lambda port, _directory="", function=function: function(port, directory)
status.PROC = directory + "/proc"
load = applied.load_applied
command.load_applied = lambda *_: load(directory + "/applied.json")
"""

HOLD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from sdisup.contract.status import PortStatus, write_status
from sdisup.contract.files import boot_id, monotonic
status = PortStatus(port_index=3, name="CAM3", state="recording", is_recording=True, boot_id=boot_id(),
                    updated_monotonic=monotonic(), frame_count=1, current_file="/srv/recordings/CAM3.mp4",
                    pid=os.getpid(), unit="sdi-record@3.service")
write_status(status, sys.argv[2])
os.makedirs(f"{sys.argv[2]}/proc/{status.pid}")
with open(f"{sys.argv[2]}/proc/{status.pid}/cgroup", "w") as cgroup:
    cgroup.write(f"0::/system.slice/{status.unit}")
print("ready", flush=True)
sys.stdin.read()
"""


# What `sdisup status` loads, and not a module more: ours, and those of the standard library.
STATUS_MODULES = {
    "cli.main", "cli.status", "control.beneath", "control.observe", "control.space", "contract.applied",
    "contract.files", "contract.filesystem", "contract.lean", "contract.mounts", "contract.records", "contract.status",
    "errors", "ledger.health",
}  # fmt: skip
STATUS_LIBRARIES = {
    "__future__", "_collections", "_collections_abc", "_json", "_operator", "_stat", "errno", "fcntl", "genericpath",
    "os", "posixpath", "stat",
}  # fmt: skip
TABLE_MODULES = {"cli.tables"}


def own_status(directory: Path, arguments: list[str], expected: str) -> set[str]:
    """The modules that `sdisup status` has loaded at its end, beside those that Python itself begins with."""
    began = set(run_fresh("print('\\n'.join(sys.modules))"))
    program = STATUS.format(prepare=PREPARE.format(directory=str(directory)), arguments=arguments, expected=expected)
    return loaded_by(program) - began - {"sdisup", "cli", "contract", "control", "ledger"}


def applied_port(directory: Path, **fields: object) -> None:
    port = {"name": "CAM3", "codec": "h264", "recordings": "/srv/recordings", "record_at_boot": True, "revision": "r"}
    (directory / "applied.json").write_text(json.dumps({"schema": 1, "ports": {"3": port | fields}, "files": []}))


@pytest.mark.parametrize(("arguments", "expected"), [(["status"], "recording"), (["status", "--json"], '"CAM3"')])
def test_status_of_a_recording_port_is_light(tmp_path: Path, arguments: list[str], expected: str) -> None:
    """Its files settle its state, so that nothing is asked of systemd and nothing slow is loaded."""
    applied_port(tmp_path)
    command = [sys.executable, "-I", "-S", "-c", HOLD, str(PACKAGE.parent), str(tmp_path)]
    runner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert runner.stdin is not None and runner.stdout is not None
    try:
        assert runner.stdout.readline() == b"ready\n"
        loaded = own_status(tmp_path, arguments, expected)
    finally:
        runner.stdin.close()
        runner.wait(10)
        runner.stdout.close()
    table = set() if "--json" in arguments else TABLE_MODULES
    assert {name for name in loaded if name in MODULES} == STATUS_MODULES | table
    assert loaded - set(MODULES) <= STATUS_LIBRARIES


UNSETTLED = [
    ("never started", None, ("loaded", "inactive", "dead"), "stopped"),
    ("forgotten by systemd", None, None, "stopped"),
    ("stopped", "stopped", ("loaded", "inactive", "dead"), "stopped"),
    ("failed", "failed", ("loaded", "failed", "failed"), "failed"),
    ("between two runners", "recording", ("loaded", "activating", "auto-restart"), "backoff"),
]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("case", "word", "unit", "state"), UNSETTLED, ids=[row[0] for row in UNSETTLED])
def test_status_of_any_other_port_asks_systemd_once_and_is_light(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, word: str | None,
    unit: tuple[str, str, str] | None, state: str, as_json: bool,
) -> None:  # fmt: skip
    """Only systemd tells a failed unit from a stopped one."""
    applied_port(tmp_path, record_at_boot=False)
    if word:
        told = PortStatus(port_index=3, unit="sdi-record@3.service", state=word, boot_id=boot_id(), pid=2**22)
        write_status(told, str(tmp_path))
    bus = FakeBus(tmp_path / "bus", {"sdi-record@3.service": unit} if unit else {})
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
    try:
        expected = f'"state": "{state}"' if as_json else f" {state} "
        loaded = own_status(tmp_path, ["status", "--json"] if as_json else ["status"], expected)
    finally:
        bus.close()
    assert bus.calls == ["ListUnitsByPatterns"] + ["Get"] * (state in ("failed", "backoff"))
    table = set() if as_json else TABLE_MODULES
    asking = {"control.bus"} if word else {"control.bus", "ledger.cut_off"}
    assert {name for name in loaded if name in MODULES} == STATUS_MODULES | table | asking
    assert loaded - set(MODULES) <= STATUS_LIBRARIES | {"_socket"}


def test_every_module_can_be_imported_alone() -> None:
    program = "import importlib, sys\n"
    for module in MODULES:
        if module != "__main__":
            program += f"importlib.import_module('sdisup.{module}'.removesuffix('.__init__'))\n"
            program += "for name in [n for n in sys.modules if n.startswith('sdisup')]: del sys.modules[name]\n"
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})


def test_what_the_installation_imports_is_there() -> None:
    script = (PACKAGE.parent / "install.sh").read_text()
    lines = re.findall(r"^from sdisup\S* import .*$", script, re.MULTILINE)
    assert len(lines) >= 4
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, cwd=PACKAGE.parent)


def test_what_runs_for_ever_is_installed_without_its_docstrings(tmp_path: Path) -> None:
    """As it is loaded from what install.sh compiles; what people ask for help on has its own."""
    script = (PACKAGE.parent / "install.sh").read_text()
    function = script[script.index("compile_code() {") : script.index("turn_link() {")]
    assert '\n        compile_code "$new" ' in script
    shutil.copytree(PACKAGE, tmp_path / "sdisup", ignore=shutil.ignore_patterns("__pycache__"))
    words = [f"python={sys.executable} code=/usr/lib/sdisup\n{function}\ncompile_code {tmp_path}"]
    subprocess.run(["bash", "-euo", "pipefail", "-c", *words], check=True)
    program = """
import sdisup.runner.main, sdisup.ledger.writer, sdisup.contract.status, sdisup.errors
print(sdisup.runner.main.__doc__, sdisup.runner.main.Runner.run.__doc__, sdisup.ledger.writer.__doc__,
      sdisup.contract.status.__doc__, bool(sdisup.errors.__doc__), sdisup.runner.main.Runner.run.__code__.co_filename)
"""
    fresh = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{program}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", fresh], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None"] * 4 + ["True", f"{tmp_path}/sdisup/runner/main.py"]
    compiled = subprocess.run([sys.executable, "-I", "-S", "-v", "-c", fresh], capture_output=True, text=True).stderr
    assert f"wrote '{tmp_path}" not in compiled, "what is compiled is taken as it is"
