"""sdisup records a facility's SDI inputs: one systemd unit and one FFmpeg a port.

Importing this package imports nothing else; its public names load on first use (PEP 562), because
the runner and `sdisup status` share the package and must not pay for what they do not need.
"""

__version__ = "0.1.0"
