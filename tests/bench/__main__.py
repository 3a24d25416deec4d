"""Measures sdisup beside what else keeps an FFmpeg running, in one run, and compares it with what is to be reached.

Boots an appliance with sdisup and the peers in it. Exits with 1 if something that was measured is not reached.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from appliance import CHECKOUT, Appliance, ApplianceError, end_on_sigterm, installed_layer, layer, say

from bench.page import replace_between, report
from bench.plot import plot
from bench.table import CPU_S, ROW_KEYS, TITLES, Results, verdicts

PAGE, PLOT = CHECKOUT / "docs/performance.md", CHECKOUT / "docs/performance.svg"
INSIDE = "/root/bench"
HOST_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
CERTIFICATES = "/opt/certificates.crt"
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL")
APT = "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"
# What is installed for which peers, each kept as a layer in the cache.
INSTALLATIONS = {
    "bench-python": (
        ("supervisor", "circus"),
        f"{APT} python3-venv && python3 -m venv /opt/peers && /opt/peers/bin/pip install -q supervisor circus",
    ),
    "bench-node": (("pm2",), f"{APT} nodejs npm && npm install --global pm2"),
}


def install(commands: str, appliance: Appliance) -> None:
    """Install something from a registry, through this machine's proxies and with its certificates."""
    environment = {name: os.environ[name] for name in PROXIES if name in os.environ}
    if HOST_CERTIFICATES.exists():
        appliance.push(HOST_CERTIFICATES, CERTIFICATES)
        environment |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"), CERTIFICATES)
    appliance.run(commands, timeout_s=900, env=environment)
    appliance.run("apt-get clean; rm -rf /root/.npm /root/.cache")


def peers_layers(peers: Sequence[str]) -> list[Path]:
    """The layers with the peers that can be had; tells which cannot."""
    layers = []
    for name, (for_peers, commands) in INSTALLATIONS.items():
        if not set(for_peers) & set(peers):
            continue
        try:
            layers.append(layer(name, commands, lambda appliance, text=commands: install(text, appliance)))  # type: ignore[misc]
        except ApplianceError as error:
            say(f"bench: without {' and '.join(for_peers)}, which could not be installed: {error}")
    return layers


def measure(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Boot an appliance, run the bench in it, and yield each line that it prints."""
    with Appliance(layers=[installed_layer(), *peers_layers(plan["peers"])]) as appliance:
        appliance.boot()
        tests = Path(__file__).resolve().parent.parent
        appliance.push(tests / "measure.py", f"{INSIDE}/measure.py")
        for file in sorted((tests / "bench").glob("*.py")):
            appliance.push(file, f"{INSIDE}/bench/{file.name}")
        command = ["python3", "-m", "bench.inside", json.dumps(plan)]
        environment = {"PYTHONPATH": f"{INSIDE}:/usr/lib/sdisup", "PYTHONDONTWRITEBYTECODE": "1"}
        process = appliance.popen(command, env=environment, stderr=None)
        assert process.stdout is not None
        for text in process.stdout:
            yield json.loads(text)
        if process.wait():
            raise ApplianceError(f"the bench in the appliance ended with exit code {process.returncode}")


def tell(line: dict[str, Any], started: float) -> None:
    """Show on stderr how far the run is."""
    if "turn" in line:
        say(f"{time.monotonic() - started:5.0f} s  round {line['round'] + 1}, {TITLES[line['turn']]}")
    elif "missing" in line:
        say(f"left out: {TITLES[line['peer']]}: {line['missing']}")
    elif "failed" in line:
        say(f"not measured: {TITLES[line['peer']]}: {line['failed']}")


def machine() -> dict[str, str]:
    """What the numbers depend on besides the versions of the peers."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "machine": f"{os.cpu_count()} cores of {model}, {gib:.0f} GiB; Debian 13 in a container (tests/appliance.py)",
        "kernel": platform.release(),
        "sdisup": commit(),
        "date": datetime.date.today().isoformat(),
    }


def commit() -> str:
    """What of sdisup is measured."""
    git = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty=, with changes"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "a checkout without git"


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/bench/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4, help="turns of every peer (4)")
    parser.add_argument("--only", type=names, default=list(ROW_KEYS), metavar="ROW,…", help=", ".join(ROW_KEYS))
    parser.add_argument("--peers", type=names, default=list(TITLES), metavar="PEER,…", help=", ".join(TITLES))
    parser.add_argument("--quick", action="store_true", help="one round, each thing once and shortly: to try the bench")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and docs/performance.svg")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the samples to a file")
    parser.add_argument("--load", type=Path, metavar="FILE", help="take the samples from a file, and measure nothing")
    options = parser.parse_args(arguments)
    for given, known in ((options.only, ROW_KEYS), (options.peers, tuple(TITLES))):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
    return options


def collect(options: argparse.Namespace, arguments: Sequence[str], lines: list[dict[str, Any]]) -> None:
    """Measure, and append each line of the run, so that an interrupted one has all that it measured."""
    plan = {
        "rounds": 1 if options.quick else options.rounds,
        "rows": options.only,
        "peers": options.peers,
        "repeats": 1 if options.quick else 3,
        "cpu_s": 5.0 if options.quick else CPU_S,
        "freeze_s": 15.0,
    }
    started = time.monotonic()
    lines.append({"facts": {**machine(), "command": f"`{shlex.join(['tests/bench/run', *arguments])}`"}})
    for line in measure(plan):
        tell(line, started)
        lines.append(line)
    lines.append({"facts": {"took": f"{(time.monotonic() - started) / 60:.0f} minutes"}})


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    end_on_sigterm()
    lines: list[dict[str, Any]] = []
    code = 0
    try:
        if options.load:
            lines = json.loads(options.load.read_text())
        else:
            collect(options, arguments, lines)
    except ApplianceError as error:
        say(f"bench: {error}")
        code = 2
    except (OSError, ValueError) as error:
        if not options.load:
            raise
        say(f"bench: {options.load} has no samples that --save wrote: {error}")
        return 2
    except KeyboardInterrupt:
        code = 130
    except SystemExit as end:
        code = int(end.code or 0)
    if options.save:
        options.save.write_text(json.dumps(lines) + "\n")
    results = Results(lines)
    text = report(results)
    print(text)
    if code:
        return code
    if options.write:
        PAGE.write_text(replace_between(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
        PLOT.write_text(plot(results), encoding="utf-8")
    return 0 if all(verdict.is_reached for _, verdict in verdicts(results)) and not results.failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
