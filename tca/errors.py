"""Errors a user can cause. Each message is one sentence that names the remedy.

The command line prints the message alone and exits with `exit_code`; anything else that
reaches the top is a defect of ours and keeps its traceback.
"""


class TcaError(Exception):
    """Something the user can put right: bad input, missing file, full disk."""

    exit_code = 1


class UsageError(TcaError):
    """Wrong flags or configuration: nothing was started."""

    exit_code = 2
