"""What differs on Debian 12: systemd 252, FFmpeg 5.1, Python 3.11. Tests of BOTH_DEBIANS take the main path on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from appliance import CHECKOUT_INSIDE
from drive import DEBIAN_12, Machine, small_ports

pytestmark = [pytest.mark.beside, DEBIAN_12]


def test_it_is_what_it_says(appliance: Machine) -> None:
    assert appliance.run("systemctl --version").stdout.startswith("systemd 252 ")
    assert appliance.run("python3 --version").stdout.startswith("Python 3.11.")
    assert appliance.run("ffmpeg -version").stdout.startswith("ffmpeg version 5.1.")


def test_it_installs_over_itself_and_goes_away_again(new_appliance: Callable[..., Machine]) -> None:
    own = new_appliance(layers=[])
    own.boot()
    own.push_checkout()
    install = f"cd {CHECKOUT_INSIDE} && unshare --net ./install.sh"
    assert own.run(install).stdout.startswith("sdisup 0.1.0 on Debian GNU/Linux 12 (bookworm)\n")
    assert ", unchanged\nnothing to change\n" in own.run(install).stdout
    own.configure(small_ports(1))
    own.sdisup("start 0")
    refused = own.run(f"{install} --uninstall", check=False)
    assert (refused.returncode, "sdi-record@0.service" in refused.stderr) == (1, True)
    own.run(f"{install} --uninstall --stop")
    assert own.run("systemctl list-units --all --plain --no-legend 'sdi-record*'").stdout == ""
    assert len(own.recordings()) == 1
    assert not own.path("/usr/lib/sdisup").exists()


def test_systemd_knows_all_that_the_units_say(appliance: Machine) -> None:
    """`systemd-analyze verify` only warns of unknown keys and exits with 0 (FACTS 2); the journal warns too."""
    cursor = appliance.journal_cursor()
    appliance.configure(small_ports(2, "[port.1]\nrecord_at_boot = true\n"))
    appliance.wait_recording(1)
    names = "sdi-record@0.service sdi-record@1.service sdi-record-retry@1.service sdi-record.target"
    names += " sdi-schedule@0.service sdi-schedules.service sdi-schedules.timer"
    assert appliance.run(f"systemd-analyze verify --man=no {names}").stderr == ""
    assert "RestartMode" not in appliance.run("systemctl cat sdi-record@1").stdout
    warnings = appliance.journal("-p", "warning", after_cursor=cursor)
    said = [str(entry["MESSAGE"]) for entry in warnings if "sdi" in str(entry)]
    assert said == []
