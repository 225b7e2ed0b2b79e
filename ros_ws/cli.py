"""Commands of the ROS room."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws import node_table, push_table
from horseshoe.ros_ws.supervisor import INTERRUPTED, Supervisor, last_words

SYSTEMS: dict[str, Any] = {"bimanual_assembly": node_table, "cooperative_push": push_table}
ENDS = {0: "", 1: "stopped by a fault", 2: "refused", INTERRUPTED: "interrupted"}


@click.command()
@click.argument("system", type=click.Choice(list(SYSTEMS)))
@click.argument("arguments", nargs=-1, metavar="[NAME:=VALUE]...")
@click.option("--log", type=click.Path(path_type=Path), help="Folder for the nodes' logs  [default: runs/up/<time>].")
@click.option("--show", is_flag=True, help="Print the node table and start nothing.")
def up(system: str, arguments: tuple[str, ...], log: Path | None, show: bool) -> None:
    """Start all nodes of a system where only pip's ROS is installed; `ros2 launch` does the same with the same names.

    Ctrl-C stops the arms and ends all nodes. Exit codes: 0 done, 1 stopped by a fault, 2 refused, 130 interrupted.
    Nodes find each other on this computer only; ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET opens that.

    \b
    Examples:
      horseshoe up bimanual_assembly
      horseshoe up bimanual_assembly robot:=emulated engine:=pybullet episodes:=5 record:=runs/bag
      horseshoe up bimanual_assembly robot:=real left_ip:=192.168.1.201 right_ip:=192.168.1.202 speed:=0.25
      horseshoe up cooperative_push robots:=6 goals:=unseen episodes:=5 shove:=true record:=runs/push
    """
    chosen = SYSTEMS[system]
    settings = chosen.parse(list(arguments))
    table = chosen.nodes(settings)
    if show:
        for spec in table:
            click.echo(f"{spec.full_name}: {spec.executable} {spec.parameters}")
        return
    if getattr(settings, "viewer", False):
        raise HorseshoeError(
            "viewer: RViz is not in pip's ROS; with a ROS 2 installation use `ros2 launch`, or open the bag"
        )
    if settings.record and Path(settings.record).exists():
        raise HorseshoeError(f"record: {settings.record} exists already; name a new folder")
    folder = log or Path("runs/up") / time.strftime("%Y%m%d-%H%M%S")
    click.echo(f"{len(table)} nodes; their logs are in {folder}")
    progress = _Progress(folder / "operator.log")
    with Supervisor(table, folder, settings.patience, chosen.parameter_file()) as supervisor:
        name, code = supervisor.wait(progress)
        codes = supervisor.stop(at_once=bool(name) and name != "/operator")
    progress()
    if name == "/operator" or not name:
        text = ENDS.get(code, f"the operator node ended with {code}")
    else:
        log = folder / f"{name.strip('/').replace('/', '_')}.log"
        # Whoever ended by itself said why; whoever was killed did not.
        why = f": {last_words(log)}" if code > 0 else ""
        text, code = f"{name} ended unexpectedly ({_how(code)}){why}; see {log}", 1
    # The operator ends first on purpose; a node that does not end well when asked to is worth a word.
    for node, each in codes.items():
        if each not in (0, -signal.SIGINT) and node not in (name, "/operator"):  # -SIGINT: asked to end while starting
            text += f"; {node} ended with {_how(each)}"
    if text:
        click.echo(text, err=True)
    sys.exit(code)


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


class _Progress:
    """Echoes what the operator node says, line by line, as it says it."""

    def __init__(self, file: Path) -> None:
        self._file, self._done = file, 0

    def __call__(self) -> None:
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._done)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._done += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            marker = "[operator]: "
            click.echo(line.split(marker, 1)[1] if marker in line else line)


@click.command()
@click.argument("bag", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="HTML file  [default: report.html in the bag]."
)
@click.option("--video", is_flag=True, help="Also draw what happened as a video (needs the sim extra).")
@click.option(
    "--cell", type=click.Path(exists=True, path_type=Path), help="For the video: the cell, if not the shipped one."
)
def report(bag: Path, output: Path | None, video: bool, cell: Path | None) -> None:
    """Make an HTML page of a recorded run: tracking, delay, jitter, skew and outcomes.

    \b
    Examples:
      horseshoe report runs/bag
      horseshoe report runs/bag --video --cell my_cell.yaml
    """
    from horseshoe.ros_ws.report import write_report

    click.echo(f"wrote {write_report(bag, output or bag / 'report.html', video, cell)}")
