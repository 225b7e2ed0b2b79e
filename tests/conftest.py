"""What every test runs under; set before any library is imported, and inherited by the processes that tests start."""

import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two torch threads on a busy two-core machine are ten times slower than one
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")  # no packet leaves this host
os.environ.setdefault("MPLBACKEND", "Agg")
