"""Commands of the hardware room."""

import logging
import os
import time
from contextlib import ExitStack
from pathlib import Path

import click

from horseshoe.bench import source

HOSTS = {"left": "127.0.0.1", "right": "127.0.0.2"}


@click.command()
@click.option("--arm", "arms", type=click.Choice(sorted(HOSTS)), multiple=True, help="Which arm; both if not given.")
@click.option("--quiet", is_flag=True, help="Do not print what the controllers do.")
def emulator(arms: tuple[str, ...], quiet: bool) -> None:
    """Emulate xArm6 controllers that the vendor's SDK can connect to.

    The left arm answers on 127.0.0.1, the right one on 127.0.0.2, on the ports of a real control box. The arms behind
    them are kinematic. Ctrl-C ends it. docs/emulator.md says what is emulated, and how to run without root.

    \b
    Examples:
      horseshoe emulator
      horseshoe emulator --arm left
      unshare -Urn sh -c 'ip link set lo up && horseshoe emulator'    # without root
    """
    from horseshoe.hardware.emulator import Controller, ControllerServer, KinematicArm

    with ExitStack() as stack:
        controllers = {name: Controller(KinematicArm()) for name in arms or sorted(HOSTS)}
        for name, controller in controllers.items():
            stack.enter_context(ControllerServer(controller, HOSTS[name]))
            click.echo(f"{name} arm: emulated controller at {HOSTS[name]}")
        shown: dict[str, str] = {}
        try:
            while True:
                for name, c in controllers.items():
                    line = f"{name} arm: mode {c.mode}, state {c.state}, error {c.error}"
                    if shown.get(name) != line and not quiet:
                        click.echo(line)
                    shown[name] = line
                time.sleep(0.2)
        except KeyboardInterrupt:
            click.echo("stopped")


@click.command("control")
@click.option("--seconds", default=60.0, show_default=True, help="How long to stream in each case.")
@click.option("--rate", default=250.0, show_default=True, help="Servo targets per second, 100 to 250.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Also write the numbers as JSON.")
def bench_control(seconds: float, rate: float, output: Path | None) -> None:
    """Measure the servo path: two arms through driver, SDK and emulated controllers, beside the bare SDK.

    \b
    Examples:
      horseshoe bench control
      horseshoe bench control --seconds 10 --output control.json
    """
    run = source("control").run
    logging.getLogger("horseshoe").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run(seconds, rate, output)
