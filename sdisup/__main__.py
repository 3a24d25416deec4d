"""The one entry: `run` is the process in a port's unit, `ledger` that of sdi-ledger.service, `unstarted` a part of
sdi-record-retry@.service, `wake` and `due` those of sdi-schedule@.service, `retain` that of sdi-retention.service,
`copy` that of sdi-offload@.service, all else the command.

install.sh places a file beside the package that calls this one, for `python3 -I -S /usr/lib/sdisup/__main__.py`.
"""

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    # As in contract/lean.py, which is not loaded yet.
    import _signal as signal


def main() -> int:
    """Run the part that the first argument asks for; returns the exit code."""
    if sys.argv[1:2] == ["run"]:
        # Before all else is loaded: a stop that comes meanwhile waits for the runner (runner/signals.py).
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
        # What is loaded stays; to look for garbage in it meanwhile takes a tenth of the time until FFmpeg is spawned.
        gc.disable()
        from sdisup.runner.begin import main as run

        return run(sys.argv[2:])
    if sys.argv[1:2] == ["ledger"]:
        from sdisup.ledger.writer import main as write_ledgers

        return write_ledgers(sys.argv[2:])
    if sys.argv[1:2] == ["retain"]:
        from sdisup.retention.main import main as retain

        return retain(sys.argv[2:])
    if sys.argv[1:2] == ["unstarted"]:
        from sdisup.ledger.unstarted import main as tell_unstarted

        return tell_unstarted(sys.argv[2:])
    if sys.argv[1:2] == ["copy"]:
        from sdisup.offload.main import main as copy

        return copy(sys.argv[2:])
    if sys.argv[1:2] == ["due"]:
        from sdisup.ledger.due import main as tell_due

        return tell_due(sys.argv[2:])
    if sys.argv[1:2] == ["wake"]:
        # For Debian's pydbus, which -S leaves out.
        import site

        site.main()
        from sdisup.control.wake import main as wake

        return wake(sys.argv[2:])
    from sdisup.cli.main import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
