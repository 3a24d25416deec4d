"""tests/measure.py measures the numbers that sdisup promises, and tests/bench/run compares them with those of others.

Whether they hold is for a quiet machine to say.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from appliance import CHECKOUT, leftovers_of
from bench.table import Results


@pytest.mark.slow
def test_each_number_is_measured() -> None:
    measure = Path(__file__).parent.parent / "measure.py"
    result = subprocess.run([sys.executable, measure, "3"], capture_output=True, text=True, check=False)
    print(result.stdout)
    # 1 tells that a limit is exceeded, as it may be on a busy machine or a slow one.
    assert result.returncode in (0, 1), result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout.count(" limit ") == 8


BENCH = CHECKOUT / "tests/bench/run"
HERE = ("hand", "unit", "bare", "sdisup")
"""The peers for which nothing has to be fetched."""


@pytest.mark.slow
def test_the_bench_measures_each_peer(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    command = [str(BENCH), "--quick", "--peers", ",".join(HERE), "--save", str(samples)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    # 1 tells that something is not reached.
    assert done.returncode in (0, 1), done.stderr
    results = Results(json.loads(samples.read_text()))
    assert results.failed == []
    for row in ("start", "start4", "start8", "kill", "stop"):
        assert all(results.stats(row, peer) for peer in HERE), row
    for row in ("frozen", "cpu", "rest", "memory", "status", "crash", "survival"):
        assert results.stats(row, "sdisup"), row
    assert [results.texts["frozen", peer] for peer in ("hand", "unit", "bare")] == 3 * ["never"]
    assert results.texts["knows", "sdisup"] and results.texts["survival", "sdisup"].startswith("next file")


@pytest.mark.slow
def test_an_interrupted_bench_leaves_nothing() -> None:
    command = [str(BENCH), "--quick", "--peers", "hand", "--only", "start8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if "round 1" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert leftovers_of(process.pid) == []
