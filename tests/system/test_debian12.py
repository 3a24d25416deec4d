"""The main path on Debian 12: systemd 252, FFmpeg 5.1, Python 3.11.

The fixtures here stand before those of conftest.py, so that tests of the other modules, imported below,
run on Debian 12 as they do on Debian 13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import test_recording
from appliance import CHECKOUT_INSIDE, Appliance, installed_layer, push_checkout
from conftest import SAVE_STATE
from drive import (
    configure,
    recordings,
    sdisup,
    small_ports,
    wait_recording,
)
from test_recording import (
    test_a_port_records_a_playable_file_with_all_its_frames,
    test_a_port_that_is_not_configured_does_not_start,
    test_a_stop_ends_the_wait_of_a_runner_that_cannot_be_executed,
    test_after_a_reboot_the_ports_that_should_record_do,
    test_after_kill_9_it_records_again_with_exactly_one_ffmpeg,
    test_start_waits_for_the_first_frame_on_disk,
    test_what_cannot_work_is_said_at_once_and_not_retried,
)

# Not defined here, and yet this module's.
__all__ = [
    "test_a_port_records_a_playable_file_with_all_its_frames",
    "test_a_port_that_is_not_configured_does_not_start",
    "test_a_stop_ends_the_wait_of_a_runner_that_cannot_be_executed",
    "test_after_a_reboot_the_ports_that_should_record_do",
    "test_after_kill_9_it_records_again_with_exactly_one_ffmpeg",
    "test_start_waits_for_the_first_frame_on_disk",
    "test_what_cannot_work_is_said_at_once_and_not_retried",
]

pytestmark = pytest.mark.system

SUITE = "bookworm"


@pytest.fixture(scope="module")
def appliance() -> Iterator[Appliance]:
    with Appliance(suite=SUITE, layers=[installed_layer(SUITE)]) as shared:
        assert shared.boot() == "running", shared.run("systemctl --failed", check=False).stdout
        shared.run(SAVE_STATE)
        yield shared


@pytest.fixture
def fresh_appliance(new_appliance: Callable[..., Appliance]) -> Appliance:
    own = new_appliance(suite=SUITE)
    assert own.boot() == "running", own.run("systemctl --failed", check=False).stdout
    return own


def test_it_is_what_it_says(appliance: Appliance) -> None:
    assert appliance.run("systemctl --version").stdout.startswith("systemd 252 ")
    assert appliance.run("python3 --version").stdout.startswith("Python 3.11.")
    assert appliance.run("ffmpeg -version").stdout.startswith("ffmpeg version 5.1.")


def test_it_installs_over_itself_and_goes_away_again(new_appliance: Callable[..., Appliance]) -> None:
    own = new_appliance(suite=SUITE, layers=[])
    own.boot()
    push_checkout(own)
    install = f"cd {CHECKOUT_INSIDE} && unshare --net ./install.sh"
    assert own.run(install).stdout.startswith("sdisup 0.1.0 on Debian GNU/Linux 12 (bookworm)\n")
    assert ", unchanged\nnothing to change\n" in own.run(install).stdout
    configure(own, small_ports(1))
    sdisup(own, "start 0")
    refused = own.run(f"{install} --uninstall", check=False)
    assert (refused.returncode, "sdi-record@0.service" in refused.stderr) == (1, True)
    own.run(f"{install} --uninstall --stop")
    assert own.run("systemctl list-units --all --plain --no-legend 'sdi-record*'").stdout == ""
    assert len(recordings(own)) == 1
    assert not own.path("/usr/lib/sdisup").exists()


def test_systemd_knows_all_that_the_units_say(appliance: Appliance) -> None:
    """`systemd-analyze verify` exits 0 on unknown keys and only warns (FACTS 2); so does the journal."""
    cursor = appliance.journal_cursor()
    configure(appliance, small_ports(2, "[port.1]\nrecord_at_boot = true\n"))
    wait_recording(appliance, 1)
    names = "sdi-record@0.service sdi-record@1.service sdi-record-retry@1.service sdi-record.target"
    assert appliance.run(f"systemd-analyze verify --man=no {names}").stderr == ""
    assert "RestartMode" not in appliance.run("systemctl cat sdi-record@1").stdout
    warnings = appliance.journal("-p", "warning", after_cursor=cursor)
    said = [str(entry["MESSAGE"]) for entry in warnings if "sdi" in str(entry)]
    assert said == []


@pytest.mark.slow
@pytest.mark.journal_allows(r"NAMESPACE|mount namespacing|Failed to start|226")
def test_a_runner_that_cannot_be_executed_heals(appliance: Appliance) -> None:
    test_recording.test_a_runner_that_cannot_be_executed_heals(appliance)
