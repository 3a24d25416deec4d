"""sdisup records a facility's SDI inputs: one systemd unit and one FFmpeg a port.

Importing this package imports nothing else; its public names load on first use (PEP 562), because
the runner and `sdisup status` share the package and must not pay for what they do not need.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sdisup.config.settings import Settings
    from sdisup.contract.status import PortStatus
    from sdisup.control.api import CodecType, FFmpegCommandBuilder, PortRecorder, RecorderConfig, RecorderManager
    from sdisup.errors import ConfigError, LockedError, RecordingError, RootError, SdisupError, UnknownPortError

_HOMES = {
    "CodecType": "control.api",
    "ConfigError": "errors",
    "FFmpegCommandBuilder": "control.api",
    "LockedError": "errors",
    "PortStatus": "contract.status",
    "RecorderConfig": "control.api",
    "PortRecorder": "control.api",
    "RecorderManager": "control.api",
    "RecordingError": "errors",
    "RootError": "errors",
    "SdisupError": "errors",
    "Settings": "config.settings",
    "UnknownPortError": "errors",
}

__all__ = [
    "CodecType",
    "ConfigError",
    "FFmpegCommandBuilder",
    "LockedError",
    "PortRecorder",
    "PortStatus",
    "RecorderConfig",
    "RecorderManager",
    "RecordingError",
    "RootError",
    "SdisupError",
    "Settings",
    "UnknownPortError",
]


def __getattr__(name: str) -> object:
    """Load a public name from the module that holds it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sdisup' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"sdisup.{_HOMES[name]}"), name)
