"""The gripper of one arm, on a connection and a thread of its own: its slow bus never delays a servo tick."""

import threading
import time

from horseshoe.hardware import xarm6
from horseshoe.hardware.sdk import connect_sdk, disconnect_sdk

PULSES, FULL_SPEED = 850, 5000
POLL = 0.1  # [s] between two readings of the position
TIMEOUT = 1.0  # [s] of a call; nothing waits for this thread
MAX_FAILURES = 3  # calls in a row that may fail, however long they take


class GripperLink:
    """Sends the newest opening, reads the measured one, never waits for the fingers.

    Attributes:
        opening: last measured distance between the pads [m], None until read.
        code: SDK code of the last call.
    """

    def __init__(self, ip: str) -> None:
        self.opening: float | None = None
        self.code = self._failures = 0
        self._last_success = time.monotonic()
        self._ip = ip
        self._wanted: int | None = None
        self._wake, self._alive = threading.Event(), True
        # Without a report thread, so that no call waits for a pause to end, which the SDK otherwise does for ever.
        self._api = connect_sdk(ip, enable_report=False, timeout=TIMEOUT)
        self._thread = threading.Thread(target=self._run, name=f"gripper {ip}", daemon=True)

    def enable(self) -> int:
        """Switch the gripper on and start serving it; returns the SDK's code, 0 if all is well."""
        calls = (
            lambda: self._api.set_gripper_enable(True),
            lambda: self._api.set_gripper_mode(0),
            lambda: self._api.set_gripper_speed(FULL_SPEED),
        )
        for call in calls:
            if (code := call()) != 0:
                return int(code)
        self._note(0)
        if not self._thread.is_alive() and self._alive:
            self._thread.start()
        return 0

    def move(self, opening: float) -> None:
        """Ask for a distance between the pads [m]; returns at once, only the newest wish counts."""
        self._wanted = round(min(max(opening / xarm6.GRIPPER_STROKE, 0.0), 1.0) * PULSES)
        self._wake.set()

    def forget(self) -> None:
        """Drop a wish that was not carried out: after a stop nothing moves because it was wanted before."""
        self._wanted = None

    def close(self) -> None:
        """End the thread and the connection."""
        self._alive = False
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(3.0)
        disconnect_sdk(self._api)

    def _run(self) -> None:
        sent: int | None = None
        while self._alive:
            self._wake.wait(POLL)
            self._wake.clear()
            wanted = self._wanted
            if wanted is not None and wanted != sent:
                # no_check: one transaction on the bus instead of two, and no wait for the arm to stand still.
                self._note(self._api.set_gripper_position(wanted, wait=False, no_check=True))
                sent = wanted if self.code == 0 else None
            if self._alive:
                code, pulses = self._api.get_gripper_position()
                self._note(code)
                if code == 0 and pulses is not None:
                    self.opening = pulses / PULSES * xarm6.GRIPPER_STROKE
            if self.code != 0:
                time.sleep(POLL)

    def failing_for(self) -> float:
        """For how long no call has been carried out [s], 0 if the last ones were."""
        return time.monotonic() - self._last_success if self._failures > MAX_FAILURES else 0.0

    def _note(self, code: int) -> None:
        self.code = int(code)
        if code == 0:
            self._last_success, self._failures = time.monotonic(), 0
        else:
            self._failures += 1
