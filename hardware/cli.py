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
