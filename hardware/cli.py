"""Commands of the hardware room."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from horseshoe.bench import source

if TYPE_CHECKING:
    from horseshoe.hardware.emulator import ControllerServer

HOSTS = {"left": "127.0.0.1", "right": "127.0.0.2"}
# What can be typed while controllers are emulated, after the name of an arm: name and number.
EVENTS: dict[str, Callable[["ControllerServer", float], None]] = {
    "fault": lambda server, code: server.run(lambda controller: controller.inject(int(code))),
    "release": lambda server, code: server.run(lambda controller: controller.release(int(code))),
    "stall": lambda server, seconds: server.stall(seconds),
    "loss": lambda server, share: setattr(server, "loss", share),
    "delay": lambda server, seconds: setattr(server, "delay", seconds),
    "cut": lambda server, on: server.cut(bool(on)),
}


@click.command()
@click.option("--arm", "arms", type=click.Choice(sorted(HOSTS)), multiple=True, help="Which arm; both if not given.")
@click.option("--quiet", is_flag=True, help="Do not print what the controllers do.")
def emulator(arms: tuple[str, ...], quiet: bool) -> None:
    """Emulate xArm6 controllers that the vendor's SDK can connect to.

    The left arm answers on 127.0.0.1, the right one on 127.0.0.2, on the ports of a real control box. The arms behind
    them are kinematic. Ctrl-C ends it. docs/emulator.md says what is emulated, and how to run without root.

    \b
    Lines typed meanwhile make things go wrong, for rehearsals:
      left fault 31       error C31 now; C1, C2, C3 and C19 last until `left release 1`
      left stall 0.19     no answer and no report for 0.19 s
      left loss 0.05      so many of the replies are lost from now on
      left delay 0.01     replies are late by so many seconds from now on
      left cut 1          the cable is cut; `left cut 0` mends it

    \b
    Examples:
      horseshoe emulator
      horseshoe emulator --arm left
      unshare -Urn sh -c 'ip link set lo up && horseshoe emulator'    # without root
    """
    import numpy as np

    from horseshoe.hardware.emulator import Controller, ControllerServer, KinematicArm
    from horseshoe.hardware.homing import HOME

    with ExitStack() as stack:
        # As somebody would leave them before they go home; at zero their hands would be in the table.
        parked = np.array(HOME) + [0.4, -0.2, 0.0, 0.0, 0.0, 0.0]
        servers = {
            name: ControllerServer(Controller(KinematicArm(parked)), HOSTS[name]) for name in arms or sorted(HOSTS)
        }
        for name, server in servers.items():
            stack.enter_context(server)
            click.echo(f"{name} arm: emulated controller at {HOSTS[name]}")
        threading.Thread(target=_listen, args=(servers,), daemon=True).start()
        shown: dict[str, str] = {}
        try:
            while True:
                for name, server in servers.items():
                    c = server.controller
                    line = f"{name} arm: mode {c.mode}, state {c.state}, error {c.error}"
                    if shown.get(name) != line and not quiet:
                        click.echo(line)
                    shown[name] = line
                time.sleep(0.2)
        except KeyboardInterrupt:
            click.echo("stopped")


def _listen(servers: Mapping[str, "ControllerServer"]) -> None:
    """Do what is typed, until the input ends."""
    for line in sys.stdin or ():
        try:
            name, event, number = line.split()
            EVENTS[event](servers[name], float(number))
        except (ValueError, KeyError):
            choices = f"{{{','.join(servers)}}} {{{','.join(EVENTS)}}} NUMBER"
            click.echo(f"not understood: {line.strip()!r}; type {choices}", err=True)


@click.command("control")
@click.option("--seconds", type=click.FloatRange(2, 60), default=60.0, show_default=True, help="Of each case.")
@click.option(
    "--rate", type=click.FloatRange(100, 250), default=250.0, show_default=True, help="Servo targets per second."
)
@click.option("--graph/--no-graph", default=True, show_default=True, help="With the whole ROS graph.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON.")
def bench_control(seconds: float, rate: float, graph: bool, json_file: Path | None) -> None:
    """Measure the servo path of two arms: with the whole ROS graph up, with the driver alone, with the bare SDK.

    The SDK is the vendor's and unmodified in all of them; the controllers are emulated.

    \b
    Examples:
      horseshoe bench control
      horseshoe bench control --seconds 10 --no-graph --json control.json
    """
    run = source("control").run
    logging.getLogger("horseshoe").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run(seconds, rate, graph, json_file)
