"""Real-time priority, tried in a process of its own so that this one keeps its own."""

import os
import subprocess
import sys

ASK = "import os; from horseshoe.hardware.priority import be_prompt; print(be_prompt(), os.sched_getscheduler(0))"


def test_a_process_says_truly_whether_it_goes_before_others() -> None:
    said = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout.strip()
    granted = f"real-time priority 20 {os.SCHED_FIFO}"
    refused = "no real-time priority"
    assert said == granted or (said.startswith(refused) and said.endswith(str(os.SCHED_OTHER))), said
