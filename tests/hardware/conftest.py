"""Two emulated controllers with the real driver and SDK on top, shared by the tests of this room."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from horseshoe.hardware.arm_driver import ArmDriver
from horseshoe.hardware.arm_settings import ArmError, ArmSettings
from horseshoe.hardware.arm_state import Phase
from horseshoe.hardware.emulator import Controller, ControllerServer, KinematicArm, cannot_bind
from horseshoe.hardware.guard import Guard, GuardLimits, GuardThread
from tests.conftest import wait_until

HOSTS = {"left": "127.0.0.1", "right": "127.0.0.2"}
HOME = np.array([0.0, -0.4, -0.6, 0.0, 1.0, 0.0])
SWING = 0.2 * np.array([1.0, 0.3, 0.3, 1.0, 1.0, 1.0])
SERVO_TICK = 0.004
RATE = 100.0  # [Hz] of the drivers, the lowest they have: two stacks share this process and its interpreter
# A loaded machine may not run a thread for seconds. Only the tests of these times use shorter ones.
PATIENCE: dict[str, Any] = {"link_timeout": 20.0, "hold_after": 10.0, "stop_after": 20.0}


def base_at(x: float) -> np.ndarray:
    """World pose of a base turned to face the other arm."""
    pose = np.eye(4)
    pose[0, 3] = x
    if x > 0:
        pose[:2, :2] *= -1
    return pose


@dataclass
class Pair:
    """Two arms and what a test does with them."""

    servers: dict[str, ControllerServer]
    drivers: dict[str, ArmDriver]
    stop_feeding: threading.Event = field(default_factory=threading.Event)
    feeder: threading.Thread | None = None

    guard: GuardThread | None = None

    def controller(self, arm: str) -> Controller:
        return self.servers[arm].controller

    def retune(self, arm: str, **changes: float) -> None:
        """Change settings of a connected arm."""
        driver = self.drivers[arm]
        driver.settings = driver._stream._settings = replace(driver.settings, **changes)

    def not_run(self) -> float:
        """For how long this machine has not run the driver threads so far [s]; deadlines are judged without it."""
        assert self.guard is not None
        return self.guard.slowest + 1 / RATE * sum(driver.log.late for driver in self.drivers.values())

    def recover(self) -> None:
        """What an operator does: remove the cause, clear, and go home."""
        self.stop_feeding.set()
        if self.feeder is not None:
            self.feeder.join()
        if self.guard is not None:
            self.guard.__exit__()
            self.guard = None
        for arm, server in self.servers.items():
            server.loss, server.delay = 0.0, 0.0
            server.cut(False)
            server.run(lambda c: [c.release(code) for code in (1, 2, 3, 19)])
            self.retune(arm, **PATIENCE)
            driver = self.drivers[arm]
            link_is_gone = driver._api is None or not driver._api.connected
            if link_is_gone:
                driver.connect()
                driver.prepare()
            else:
                driver.stop("made ready for the next test")
                wait_until(lambda driver=driver: driver.snapshot().phase is Phase.STOPPED)
                driver.clear()
            driver.move_to(HOME, speed=2.0)

    def swing(self) -> None:
        """Stream a smooth motion to both arms, under the guard, and wait until both really move."""
        for driver in self.drivers.values():
            driver.start()
        patient = GuardLimits(staleness=20.0, skew=20.0)
        guard = Guard({"left": base_at(0.0), "right": base_at(2.0)}, patient)
        self.guard = GuardThread(guard, self.drivers, rate=RATE).__enter__()
        self.stop_feeding.clear()
        self.feeder = threading.Thread(target=self._feed, daemon=True)
        self.feeder.start()
        for arm in self.drivers:
            wait_until(lambda arm=arm: np.abs(self.controller(arm).set_point.v).max() > 0.1)

    def _feed(self) -> None:
        ticks, begin = 15, time.monotonic()
        while not self.stop_feeding.is_set():
            t = time.monotonic() - begin + np.arange(ticks) / RATE
            targets = HOME + np.sin(1.5 * t)[:, None] * SWING
            for driver in self.drivers.values():
                try:
                    driver.send(targets)
                except ArmError:
                    return
            time.sleep(0.08)

    def noticed(self, arm: str) -> dict[str, int]:
        """Wait until an arm's driver gives up; the ticks of both controllers then."""
        wait_until(lambda: self.drivers[arm].snapshot().phase in (Phase.STOPPING, Phase.STOPPED), every=0.001)
        return {each: self.controller(each).ticks for each in self.drivers}

    def rest_time(self, arm: str, since: int) -> float:
        """Emulated time from tick `since` until the set point of an arm stood still for good [s]."""
        trace = list(self.controller(arm).trace)
        moved = [n for (n, q), (_, before) in zip(trace[1:], trace, strict=False) if n > since and np.any(q != before)]
        return (max(moved) - since) * SERVO_TICK if moved else 0.0


@pytest.fixture(scope="session")
def _pair() -> Iterator[Pair]:
    for host in HOSTS.values():
        if reason := cannot_bind(host):
            pytest.skip(f"no controller can be emulated: {reason}")
    servers = {arm: ControllerServer(Controller(KinematicArm(HOME)), host).start() for arm, host in HOSTS.items()}
    settings = {arm: ArmSettings(arm, host, rate=RATE, ramp=0.3, **PATIENCE) for arm, host in HOSTS.items()}
    drivers = {arm: ArmDriver(settings[arm]) for arm in HOSTS}
    for driver in drivers.values():
        driver.connect()
        driver.prepare()
    pair = Pair(servers, drivers)
    yield pair
    pair.stop_feeding.set()
    for driver in drivers.values():
        driver.close()
    for server in servers.values():
        server.stop()


@pytest.fixture
def pair(_pair: Pair) -> Iterator[Pair]:
    """Both arms prepared, idle and at home."""
    _pair.recover()
    yield _pair
    _pair.stop_feeding.set()
