"""Going before all other programs, for processes that a moving arm depends on."""

import os
import sys

PRIORITY = 20  # of 1 to 99; the kernel's own threads that carry network packets have 50
SWITCH = (
    0.001  # [s] that a thread may keep the interpreter from the one that streams; Python's default is five times it
)


def be_prompt() -> str:
    """Give this thread, and those it starts from now on, real-time priority where the system allows it.

    Returns:
        What came of it, for a log.
    """
    sys.setswitchinterval(SWITCH)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except (OSError, AttributeError):
        return "no real-time priority: other programs may delay the arms (docs/deploy.md, 'Computer')"
    return f"real-time priority {PRIORITY}"
