"""Who may import whom (DESIGN.md, Layout), read from the source and tried by running it.

A broken configuration, a missing library or an upgrade of the command must not stop a recording; and what
has to be quick must not load what it does not need.
"""

from __future__ import annotations

import ast
import graphlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import sdisup

PACKAGE = Path(sdisup.__file__).resolve().parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))

# What a recording depends on: standard library, and each other.
RUNNER_SIDE = (
    "runner", "progress", "notify", "status", "causes", "disk", "ffmpeg", "meter", "journal", "options",
)  # fmt: skip
# What reads the configuration, asks systemd or talks to people: no recording may need any of it.
CONTROLLER_SIDE = {
    "__main__", "applied", "apply", "cli", "codecs", "command", "config", "config_files", "config_merge",
    "config_rules", "errors", "manager", "probe", "settings_docs", "settings_table", "systemd", "table", "units",
}  # fmt: skip
# FACTS 5: what each of these costs at every start and in every port's memory.
COSTLY_FOR_A_RUNNER = {
    "subprocess", "asyncio", "logging", "dataclasses", "typing", "pathlib", "tomllib", "jinja2", "pydbus", "gi",
    "threading", "argparse",
}  # fmt: skip
COSTLY_FOR_STATUS = {"pydbus", "gi", "tomllib", "dataclasses", "jinja2", "subprocess"}


class Import(NamedTuple):
    """One import: the module of this project or the library, and whether it waits for a function to be called."""

    name: str
    is_lazy: bool


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_in(body: list[ast.stmt], is_lazy: bool) -> list[Import]:
    found = []
    for node in body:
        if isinstance(node, ast.Import):
            found += [Import(alias.name, is_lazy) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            module = node.module or ""
            if module == "sdisup":
                found += [Import(f"sdisup.{alias.name}", is_lazy) for alias in node.names]
            else:
                found.append(Import(module, is_lazy))
        elif not is_type_checking(node):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for _, value in ast.iter_fields(node):
                if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                    found += imports_in(value, is_lazy or is_function)
                for handler in value if isinstance(value, list) else []:
                    if isinstance(handler, ast.ExceptHandler):
                        found += imports_in(handler.body, is_lazy)
    return found


def imports_of(module: str) -> list[Import]:
    return imports_in(ast.parse((PACKAGE / f"{module}.py").read_text()).body, is_lazy=False)


def project_imports(module: str, *, lazy: bool = True) -> set[str]:
    """The project's modules that a module imports; `__init__`'s own names such as __version__ are none."""
    names = {entry.name for entry in imports_of(module) if lazy or not entry.is_lazy}
    return {name.removeprefix("sdisup.") for name in names if name.startswith("sdisup.")} & set(MODULES)


def libraries(module: str) -> set[str]:
    """What a module imports of neither the project nor the standard library."""
    tops = {entry.name.partition(".")[0] for entry in imports_of(module)}
    return {top for top in tops if top != "sdisup" and top not in sys.stdlib_module_names}


def reach(module: str) -> set[str]:
    """All of the project that a module may load, at its beginning or later."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += project_imports(name)
    return seen


# ---- By the source ----


@pytest.mark.parametrize("module", RUNNER_SIDE)
def test_what_records_needs_the_standard_library_and_its_own_side_alone(module: str) -> None:
    for name in reach(module):
        assert libraries(name) == set(), name
    assert reach(module) & CONTROLLER_SIDE == set()


def test_what_is_not_of_the_runner_is_not_near_it() -> None:
    """A new module belongs to one side: on the runner's it is held to the runner's rule."""
    assert reach("runner") >= set(RUNNER_SIDE)
    assert not reach("runner") & {module for module in MODULES if libraries(module)}


def test_the_runner_loads_everything_before_it_records() -> None:
    """An upgrade underneath a running port must not mix versions."""
    lazy = [(name, entry.name) for name in reach("runner") for entry in imports_of(name) if entry.is_lazy]
    assert lazy == []


@pytest.mark.parametrize("module", ["progress", "causes", "meter", "options", "journal", "notify", "ffmpeg"])
def test_the_small_parts_need_nothing_of_the_project(module: str) -> None:
    assert project_imports(module) == set()


def test_systemd_needs_nothing_of_the_project_but_errors() -> None:
    assert project_imports("systemd") == {"errors"}


def test_one_module_alone_knows_d_bus() -> None:
    assert [module for module in MODULES if {"pydbus", "gi"} & libraries(module)] == ["systemd"]
    assert all(entry.is_lazy for entry in imports_of("systemd") if entry.name.partition(".")[0] in ("pydbus", "gi"))


def test_nothing_imports_the_command_but_main() -> None:
    assert [module for module in MODULES if "cli" in project_imports(module)] == ["__main__"]


def test_the_command_loads_what_is_slow_only_when_it_is_asked_for() -> None:
    slow = {"apply", "config", "manager", "probe", "systemd", "units"}
    assert project_imports("cli", lazy=False) & slow == set()
    assert "manager" in project_imports("cli")


def test_the_package_and_errors_import_nothing() -> None:
    assert [entry for entry in imports_of("__init__") if not entry.is_lazy] == []
    assert [entry.name for entry in imports_of("errors")] == ["__future__"]


def test_nothing_imports_in_a_circle() -> None:
    sorter = graphlib.TopologicalSorter({module: project_imports(module, lazy=False) for module in MODULES})
    sorter.prepare()  # raises CycleError, which names the circle


# ---- By running ----


def loaded_by(program: str) -> set[str]:
    """The top-level modules that a program has loaded at its end, in a Python as a unit starts it."""
    script = f"import sys\nsys.path.insert(0, {str(PACKAGE.parent)!r})\n{program}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.splitlines()} | {
        name for name in done.stdout.splitlines() if name.startswith("sdisup.")
    }


def test_the_runner_is_light() -> None:
    loaded = loaded_by("import sdisup.runner")
    assert "sdisup.runner" in loaded
    assert loaded & COSTLY_FOR_A_RUNNER == set()
    assert {name.removeprefix("sdisup.") for name in loaded if name.startswith("sdisup.")} & CONTROLLER_SIDE == set()


def test_the_package_alone_is_nothing() -> None:
    assert loaded_by("import sdisup") & {"json", "os.path", "sdisup.errors", "typing", "re"} == set()


STATUS = """
import io, json, os, contextlib
from sdisup import applied, cli, manager, status
directory = {directory!r}
for module in (applied, manager, status):
    for name in ("read_status", "lock_holder"):
        function = getattr(module, name, None)
        if function is not None:
            setattr(module, name, lambda port, _directory="", function=function: function(port, directory))
load = applied.load_applied
cli.load_applied = lambda *_: load(directory + "/applied.json")
output = io.StringIO()
with contextlib.redirect_stdout(output):
    code = cli.main({arguments!r})
assert code == 0, code
assert {expected!r} in output.getvalue(), output.getvalue()
"""

HOLD = """
import sys
sys.path.insert(0, sys.argv[1])
from sdisup.status import PortStatus, boot_id, monotonic, take_lock, write_status
take_lock(3, sys.argv[2])
status = PortStatus(port_index=3, name="CAM3", state="recording", is_recording=True, boot_id=boot_id(),
                    updated_monotonic=monotonic(), frame_count=1, current_file="/srv/recordings/CAM3.mp4")
write_status(status, sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("arguments", "expected"), [(["status"], "recording"), (["status", "--json"], '"CAM3"')])
def test_status_of_a_recording_port_is_light(tmp_path: Path, arguments: list[str], expected: str) -> None:
    """Its files settle its state, so that nothing is asked of systemd and nothing slow is loaded."""
    port = {"name": "CAM3", "codec": "h264", "recordings": "/srv/recordings", "record_at_boot": True, "revision": "r"}
    (tmp_path / "applied.json").write_text(json.dumps({"schema": 1, "ports": {"3": port}, "files": []}))
    command = [sys.executable, "-I", "-S", "-c", HOLD, str(PACKAGE.parent), str(tmp_path)]
    runner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert runner.stdin is not None and runner.stdout is not None
    try:
        assert runner.stdout.readline() == b"ready\n"
        loaded = loaded_by(STATUS.format(directory=str(tmp_path), arguments=arguments, expected=expected))
    finally:
        runner.stdin.close()
        runner.wait(10)
        runner.stdout.close()
    assert "sdisup.manager" in loaded
    assert loaded & COSTLY_FOR_STATUS == set()
    assert not loaded & {"sdisup.systemd", "sdisup.config", "sdisup.units"}


def test_every_module_can_be_imported_alone() -> None:
    """No module may work only because another was imported before it."""
    program = "import importlib, sys\n"
    for module in MODULES:
        if module != "__main__":
            program += f"sys.modules = sys.modules\nimportlib.import_module('sdisup.{module}')\n"
            program += "for name in [n for n in sys.modules if n.startswith('sdisup')]: del sys.modules[name]\n"
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})
