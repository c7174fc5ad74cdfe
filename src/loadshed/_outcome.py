"""Whether a request was of use: what a limit that adapts itself learns from how it ended."""

from loadshed._errors import BackPressureError, RequestTimeoutError

IN_VAIN = (TimeoutError, RequestTimeoutError, BackPressureError)
"""Errors that fewer requests at once would help against. Any other is an answer like any other: a
flood of bad requests must not shrink the limit."""


def was_of_use(error: BaseException | None) -> bool:
    """Whether what ended with this error, or with none, was not in vain.

    It was if it was cancelled: somebody has lost patience.
    """
    return error is None or (isinstance(error, Exception) and not isinstance(error, IN_VAIN))
