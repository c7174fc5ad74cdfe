"""Log records and output of a replica."""

import logging
import sys

from loadshed._policy.wire import Kind, encode_value
from loadshed._replica.channel import Channel

PLAIN = (str, int, float, bool)
"""What can be sent for certain, and made again; a subclass may know only the replica."""


class Forwarder(logging.Handler):
    """Sends records to the pool's process, whose configuration decides about them.

    Args:
        channel: Where to.
    """

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, as text where it carries what can't be pickled."""
        try:
            values = dict(record.__dict__, msg=record.getMessage(), args=None, exc_info=None)
            if record.exc_info:
                values["exc_text"] = logging.Formatter().formatException(record.exc_info)
            try:
                parts = encode_value(Kind.LOG, 0, values)
            except Exception:  # noqa: BLE001 - one of the `extra` fields
                plain = {k: v for k, v in values.items() if type(v) in PLAIN}
                parts = encode_value(Kind.LOG, 0, plain)
            self._channel.send(parts)
        except Exception:  # noqa: BLE001 - as every handler of the standard library
            self.handleError(record)


def forward(channel: Channel, level: int) -> None:
    """Send what is logged, and print line by line."""
    root = logging.getLogger()
    root.setLevel(level)
    root.addHandler(Forwarder(channel))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
