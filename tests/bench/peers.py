"""What keeps an FFmpeg running: each peer as its documentation sets it up, with the same FFmpeg. Runs in the appliance.

All peers but bare and sdisup run `job-N.sh`, which executes the FFmpeg of sdisup's port N with a new file each time.
None may give up for good, which some do by default (systemd's start limit, startretries, max_retry, max_restarts): a
recorder must not. FFmpeg's log goes to /dev/null but for sdisup, which reads it: for the others it would be work alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.watch import RECORDINGS, FFmpegs

PORTS = 9
CRASHING = PORTS
"""The port whose FFmpeg fails at once: nobody listens where it reads from."""
PLACE = Path("/run/bench")
UNITS = Path("/run/systemd/system")
VENV = "/opt/peers/bin"
CONFIGURATION = f"""\
[appliance]
ports = {PORTS + 1}
[defaults]
source = {{ kind = "test", size = "640x360", rate = 25 }}
container = "mkv"
preset = "ultrafast"
[port.{CRASHING}]
source = {{ kind = "custom", input = ["-i", "tcp://127.0.0.1:9"], rate = 25 }}
"""


def text_of(*command: str) -> str:
    """What a command prints; it has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def unit_text(port: int) -> str:
    """A port's unit with its drop-in."""
    return text_of("systemctl", "cat", f"sdi-record@{port}")


SEVERAL = "-max_interleave_delta"
"""With this word begins what is only for several files."""


def port_command(port: int) -> list[str]:
    """The FFmpeg command line in a port's unit, into one file, for which `{output}` stands: only sdisup's runner lends
    FFmpeg the next one."""
    words = shlex.split(unit_text(port).replace("\\\n", " ").rpartition(" -- ")[2].strip())
    return [*words[: words.index(SEVERAL)], *one_file(words)]


def one_file(words: list[str]) -> list[str]:
    """The end of a command for several files as one for one file, which has the options of each."""
    value = {option: words[words.index(option) + 1] for option in ("-segment_format", "-segment_format_options")}
    own = [f"-{option}".split("=", 1) for option in value["-segment_format_options"].split(":")]
    return [*(word for pair in own for word in pair), "-f", value["-segment_format"], words[-1]]


def write_jobs() -> None:
    """Write the scripts that the peers run."""
    PLACE.mkdir(exist_ok=True)
    for port in range(PORTS + 1):
        # The `$` of `$1` and `$$` is the shell's; nothing else of the command is.
        words = " ".join(
            f'"{RECORDINGS}/$1-{port}-$$.mkv"' if word == "{output}" else shlex.quote(word)
            for word in port_command(port)
        )
        (PLACE / f"job-{port}.sh").write_text(f"exec {words} 2>/dev/null\n")


def job(peer: str, port: int) -> list[str]:
    """The command that a peer runs for a port."""
    return ["/bin/sh", str(PLACE / f"job-{port}.sh"), peer]


def write_unit(name: str, text: str) -> None:
    (UNITS / name).write_text(text)


def main_pid(unit: str) -> int:
    return int(text_of("systemctl", "show", "-P", "MainPID", unit))


def without_directives(text: str, names: Sequence[str]) -> str:
    """A unit's text without these directives."""
    return re.sub(rf"^(?:{'|'.join(names)})=(?:.*\\\n)*.*\n", "", text, flags=re.MULTILINE)


class Peer:
    """Something that keeps FFmpegs running, from up() to down().

    `key` names it on the command line, `title` in the table. start() and stop() return at once; finish() waits for
    what they started.
    """

    key = ""
    title = ""
    can_be_killed = True
    """Whether it has a process of its own that can be killed, so that the recordings show what comes of it."""
    is_supervisor = True

    def __init__(self) -> None:
        self._commands: list[subprocess.Popen[bytes]] = []

    def missing(self) -> str:
        """Why it cannot be measured here; empty if it can."""
        return ""

    def version(self) -> str:
        return ""

    def up(self, *, runs: bool = False) -> None:
        """Set it up with all ports and none started. With `runs` port 0 alone is there, and it is started."""

    def prepare(self, ports: Sequence[int]) -> None:
        """Whatever an operator sets up beforehand to start these ports together by one command."""

    def start(self, ports: Sequence[int]) -> None:
        raise NotImplementedError

    def stop(self, ports: Sequence[int]) -> None:
        raise NotImplementedError

    def revive(self, port: int) -> None:
        """FFmpeg was killed: whoever has to start it again does so. Nothing, where that is the supervisor's."""

    def status_command(self) -> list[str]:
        return []

    def processes(self, ports: Sequence[int]) -> list[int]:
        """The PIDs of the supervision of these ports."""
        return []

    def killed(self) -> list[int]:
        """The PIDs of which a kill -9 is its own death, where port 0 alone is started."""
        return self.processes([0])

    def down(self) -> None:
        """End all of it."""

    def spawn(self, *command: str, environment: dict[str, str] | None = None) -> None:
        null = subprocess.DEVNULL
        self._commands.append(
            subprocess.Popen(command, stdin=null, stdout=null, stderr=null, env={**os.environ, **(environment or {})})
        )

    def finish(self, timeout_s: float = 40.0) -> None:
        """Wait for the commands of start() and stop()."""
        for command in self._commands:
            command.wait(timeout_s)
        self._commands = []


class ByHand(Peer):
    """Nobody supervises: the bench starts FFmpeg, starts it again, and ends it by SIGTERM."""

    key = "hand"
    title = "FFmpeg by hand"
    can_be_killed = is_supervisor = False

    def __init__(self) -> None:
        super().__init__()
        self._ffmpegs: dict[int, subprocess.Popen[bytes]] = {}

    def version(self) -> str:
        return text_of("ffmpeg", "-version").split()[2]

    def start(self, ports: Sequence[int]) -> None:
        for port in ports:
            self._ffmpegs[port] = subprocess.Popen(
                job(self.key, port), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    def stop(self, ports: Sequence[int]) -> None:
        for port in ports:
            self._ffmpegs[port].send_signal(signal.SIGTERM)

    def revive(self, port: int) -> None:
        self._ffmpegs[port].wait()
        self.start([port])

    def finish(self, timeout_s: float = 40.0) -> None:
        for process in self._ffmpegs.values():
            process.poll()

    def down(self) -> None:
        for process in self._ffmpegs.values():
            process.kill()
            process.wait()
            if process.stdin:
                process.stdin.close()
        self._ffmpegs = {}


class Units(Peer):
    """A template unit, of which each port is an instance."""

    template = ""

    def unit(self, port: int) -> str:
        return self.template.replace("@", f"@{port}")

    def start(self, ports: Sequence[int]) -> None:
        self.spawn("systemctl", "start", *map(self.unit, ports))

    def stop(self, ports: Sequence[int]) -> None:
        self.spawn("systemctl", "stop", *map(self.unit, ports))

    def up(self, *, runs: bool = False) -> None:
        if runs:
            self.start([0])

    def status_command(self) -> list[str]:
        return ["systemctl", "--no-pager", "list-units", "--all", self.template.replace("@", "@*")]

    def down(self) -> None:
        self.finish()
        subprocess.run(["systemctl", "stop", self.template.replace("@", "@*")], check=False, capture_output=True)
        subprocess.run(["systemctl", "reset-failed"], check=False)


class PlainUnit(Units):
    """What a page on systemd suggests: Restart=always."""

    key = "unit"
    title = "plain systemd unit"
    template = "bench-plain@.service"
    can_be_killed = False

    def up(self, *, runs: bool = False) -> None:
        write_unit(
            self.template,
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=always\n"
            f"ExecStart=/bin/sh {PLACE}/job-%i.sh {self.key}\n",
        )
        text_of("systemctl", "daemon-reload")
        super().up(runs=runs)


BARE = f"""\
import os, sys
words = [w.replace("{{output}}", f"{RECORDINGS}/bare-{{os.getpid()}}.mkv") for w in sys.argv[1:]]
null = [(os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)]
os.waitpid(os.posix_spawn(words[0], words, os.environ, file_actions=null), 0)
"""


class Bare(Units):
    """The floor of sdisup's design: its sandboxed unit with a Python that does nothing but spawn FFmpeg and wait."""

    key = "bare"
    title = "bare"
    template = "bench-bare@.service"

    def version(self) -> str:
        return text_of("/usr/bin/python3", "--version").split()[1]

    def up(self, *, runs: bool = False) -> None:
        (PLACE / "bare.py").write_text(BARE)
        unit = self._unit()
        write_unit(self.template, unit)
        text_of("systemctl", "daemon-reload")
        super().up(runs=runs)

    def _unit(self) -> str:
        """Port 0's unit and drop-in, without what only sdisup's runner can do, for all ports."""
        text = unit_text(0)
        command = text.replace("\\\n", " ").rpartition(" -- ")[2].strip()
        # The end of a command needs no quoting.
        command = " ".join([command[: command.index(SEVERAL)].strip(), *one_file(shlex.split(command))])
        unwanted = ["ExecStart", "Type", "NotifyAccess", "WatchdogSec", "WatchdogSignal", "OnFailure", "PartOf"]
        unwanted += ["AssertPathExists", "SyslogIdentifier", "RuntimeDirectory", "StartLimitIntervalSec", "KillMode"]
        kept = without_directives(text, unwanted)
        return (
            f"{kept}\n[Service]\nRuntimeDirectory=bench-bare/port-%i\nType=exec\n"
            f"ExecStart=:/usr/bin/python3 -I -S {PLACE}/bare.py {command}\n[Unit]\nStartLimitIntervalSec=0\n"
        )

    def processes(self, ports: Sequence[int]) -> list[int]:
        return [main_pid(self.unit(port)) for port in ports]


class Sdisup(Units):
    """This checkout, installed by ./install.sh."""

    key = "sdisup"
    title = "sdisup"
    template = "sdi-record@.service"

    def status_command(self) -> list[str]:
        return ["sdisup", "status"]

    def processes(self, ports: Sequence[int]) -> list[int]:
        return [*self.killed_of(ports), main_pid("sdi-ledger.service")]

    def killed_of(self, ports: Sequence[int]) -> list[int]:
        return [main_pid(self.unit(port)) for port in ports]

    def killed(self) -> list[int]:
        return self.killed_of([0])


class Daemon(Peer):
    """A supervisor with a process of its own, which runs as the unit that its documentation or package gives it."""

    program = ""
    unit = ""

    def missing(self) -> str:
        return "" if os.path.exists(self.program) else f"{self.program} could not be installed"

    def configure(self, ports: Sequence[int], *, runs: bool) -> str:
        """Write its configuration; returns the [Service] section of its unit."""
        raise NotImplementedError

    def control(self, *words: str) -> list[str]:
        """The command by which an operator asks something of it."""
        raise NotImplementedError

    def is_up(self) -> bool:
        done = subprocess.run(self.status_command(), capture_output=True, check=False, env=self.environment())
        # supervisorctl's exit code 3 says that a program does not run.
        return done.returncode in (0, 3)

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def up(self, *, runs: bool = False) -> None:
        ports = [0] if runs else list(range(PORTS + 1))
        write_unit(self.unit, self.configure(ports, runs=runs))
        text_of("systemctl", "daemon-reload")
        text_of("systemctl", "start", self.unit)
        deadline = time.monotonic() + 30
        while not self.is_up():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.title} does not answer within 30 s")
            time.sleep(0.2)

    def processes(self, ports: Sequence[int]) -> list[int]:
        return [main_pid(self.unit)]

    def down(self) -> None:
        self.finish()
        subprocess.run(["systemctl", "stop", self.unit], check=False, capture_output=True)
        subprocess.run(["systemctl", "kill", "--signal=KILL", self.unit], check=False, capture_output=True)
        subprocess.run(["systemctl", "reset-failed"], check=False)


class Supervisor(Daemon):
    """supervisord, with the unit of Debian's package, but for RestartSec=, which is 50 s there.

    What is started together is a group: of several programs supervisorctl starts one after the other, and waits a
    second for each.
    """

    key = "supervisor"
    title = "supervisord"
    program = f"{VENV}/supervisord"
    unit = "bench-supervisor.service"

    def version(self) -> str:
        return text_of(self.program, "--version").strip()

    def configure(self, ports: Sequence[int], *, runs: bool) -> str:
        self._write_configuration(ports, [port for port in ports if port < CRASHING - 1], runs=runs)
        return (
            f"[Service]\nExecStart={self.program} -n -c {PLACE}/supervisord.conf\n"
            f"ExecStop={shlex.join(self.control('shutdown'))}\nKillMode=process\nRestart=on-failure\nRestartSec=5\n"
        )

    def prepare(self, ports: Sequence[int]) -> None:
        if list(ports) != self._group and len(ports) > 1:
            self._write_configuration(range(PORTS + 1), ports, runs=False)
            text_of(*self.control("update"))

    def _write_configuration(self, ports: Sequence[int], group: Sequence[int], *, runs: bool) -> None:
        self._group = list(group)
        text = (
            f"[supervisord]\nlogfile={PLACE}/supervisord.log\npidfile={PLACE}/supervisord.pid\nchildlogdir={PLACE}\n"
            f"[unix_http_server]\nfile={PLACE}/supervisor.sock\n"
            f"[supervisorctl]\nserverurl=unix://{PLACE}/supervisor.sock\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
        )
        for port in ports:
            text += (
                f"[program:p{port}]\ncommand={shlex.join(job(self.key, port))}\nautorestart=true\n"
                f"autostart={'true' if runs else 'false'}\nstartretries=1000000\n"
            )
        text += f"[group:together]\nprograms={','.join(f'p{port}' for port in group)}\n"
        (PLACE / "supervisord.conf").write_text(text)

    def _names(self, ports: Sequence[int]) -> list[str]:
        """What supervisorctl calls these ports, which are the group or one of all."""
        if list(ports) == self._group:
            return ["together:*"]
        return [f"together:p{port}" if port in self._group else f"p{port}" for port in ports]

    def control(self, *words: str) -> list[str]:
        return [f"{VENV}/supervisorctl", "-c", f"{PLACE}/supervisord.conf", *words]

    def start(self, ports: Sequence[int]) -> None:
        self.spawn(*self.control("start", *self._names(ports)))

    def stop(self, ports: Sequence[int]) -> None:
        self.spawn(*self.control("stop", *self._names(ports)))

    def status_command(self) -> list[str]:
        return self.control("status")


class Circus(Daemon):
    """circusd, with the unit of its documentation."""

    key = "circus"
    title = "circus"
    program = f"{VENV}/circusd"
    unit = "bench-circus.service"

    def version(self) -> str:
        return text_of(self.program, "--version").strip().split()[-1]

    def configure(self, ports: Sequence[int], *, runs: bool) -> str:
        text = "[circus]\nendpoint = tcp://127.0.0.1:15555\npubsub_endpoint = tcp://127.0.0.1:15556\n"
        for port in ports:
            # The name ends with a letter, so that a pattern for one port is not one for another.
            text += f"[watcher:p{port}x]\ncmd = {shlex.join(job(self.key, port))}\nmax_retry = -1\n"
        (PLACE / "circus.ini").write_text(text)
        return f"[Service]\nExecStart={self.program} {PLACE}/circus.ini\nRestart=always\nRestartSec=5\n"

    def control(self, *words: str) -> list[str]:
        return [f"{VENV}/circusctl", "--endpoint", "tcp://127.0.0.1:15555", *words]

    def up(self, *, runs: bool = False) -> None:
        super().up(runs=runs)
        if not runs:
            # Watchers without autostart are not started by a pattern, and one command for each would take longer.
            self.spawn(*self.control("stop", "--waiting"))
            self.finish()

    def _pattern(self, ports: Sequence[int]) -> str:
        """The ports are one, or the first ones: circusctl takes one name, which may be a pattern."""
        return f"p{ports[0]}x" if len(ports) == 1 else f"p[{ports[0]}-{ports[-1]}]x"

    def start(self, ports: Sequence[int]) -> None:
        self.spawn(*self.control("start", self._pattern(ports)))

    def stop(self, ports: Sequence[int]) -> None:
        self.spawn(*self.control("stop", self._pattern(ports)))

    def status_command(self) -> list[str]:
        return self.control("status")


class Pm2(Daemon):
    """pm2, with a unit as `pm2 startup` writes it."""

    key = "pm2"
    title = "pm2"
    program = "/usr/local/bin/pm2"
    unit = "bench-pm2.service"

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PM2_HOME": f"{PLACE}/pm2"}

    def version(self) -> str:
        node = text_of("node", "--version").strip()
        words = subprocess.run([self.program, "--version"], capture_output=True, text=True, env=self.environment())
        return f"{words.stdout.split()[-1]} (node {node})"

    def configure(self, ports: Sequence[int], *, runs: bool) -> str:
        (PLACE / "pm2").mkdir(exist_ok=True)
        apps = []
        for port in ports:
            script, *arguments = job(self.key, port)
            more = {"name": f"p{port}", "interpreter": "none", "max_restarts": 1_000_000}
            apps.append({"script": script, "args": arguments, **more})
        (PLACE / "pm2.json").write_text(json.dumps({"apps": apps}))
        return (
            f"[Service]\nType=forking\nEnvironment=PM2_HOME={PLACE}/pm2\nPIDFile={PLACE}/pm2/pm2.pid\n"
            f"Restart=on-failure\nExecStart={self.program} start {PLACE}/pm2.json\nExecStop={self.program} kill\n"
            "TimeoutStartSec=60\n"
        )

    def control(self, *words: str) -> list[str]:
        return [self.program, *words]

    def up(self, *, runs: bool = False) -> None:
        super().up(runs=runs)
        if not runs:
            # pm2 knows no app that was never started.
            self.spawn(*self.control("stop", "all"), environment=self.environment())
            self.finish()

    def start(self, ports: Sequence[int]) -> None:
        self.spawn(*self.control("start", *(f"p{port}" for port in ports)), environment=self.environment())

    def stop(self, ports: Sequence[int]) -> None:
        self.spawn(*self.control("stop", *(f"p{port}" for port in ports)), environment=self.environment())

    def status_command(self) -> list[str]:
        return ["env", f"PM2_HOME={PLACE}/pm2", *self.control("list")]


KINDS: tuple[type[Peer], ...] = (ByHand, PlainUnit, Supervisor, Circus, Pm2, Bare, Sdisup)


def clear() -> None:
    """Kill the FFmpegs that a peer has left, and remove the recordings."""
    for pid in FFmpegs().find():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for path in Path(RECORDINGS).glob("*.mkv"):
        path.unlink()
