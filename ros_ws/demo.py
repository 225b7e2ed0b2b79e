"""`horseshoe demo`: the shipped policy on emulated arms, through the whole graph and the unmodified SDK."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

from horseshoe.errors import HorseshoeError

OUT = Path("out/demo")
NETWORK = "HORSESHOE_DEMO_NETWORK"  # set inside a network of our own
PUSH_SEED = 0  # of the held-out scenes
PATIENCE = 100.0  # scale of time-outs: nobody stands beside these arms, and this computer may be busy


@click.command()
@click.option("--episodes", type=click.IntRange(1, 1000), help="How many  [default: 3; with --sim 20, with --push 4].")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=OUT, show_default=True)
@click.option(
    "--engine",
    type=click.Choice(["mujoco", "pybullet"]),
    help="Of the emulated arms' world  [default: pybullet, which no training saw].",
)
@click.option("--policy", help="A shipped policy's name, or a folder  [default: u_shape; with --push push].")
@click.option("--video/--no-video", default=True, show_default=True, help="Of the emulated arms.")
@click.option("--sim", is_flag=True, help="In simulation only: no ROS, no SDK, many episodes in little time.")
@click.option("--push", is_flag=True, help="Six robots push soft objects of shapes they never saw.")
@click.pass_context
def demo(
    ctx: click.Context,
    episodes: int | None,
    out: Path,
    engine: str | None,
    policy: str | None,
    video: bool,
    sim: bool,
    push: bool,
) -> None:
    """Watch the shipped policy work two emulated arms on scenes it never saw: table, video and report page.

    Everything but the arms runs as it would with real ones: ROS nodes, guard, driver and the vendor's SDK, over TCP to
    two emulated controllers whose arms move in a simulated world, in real time.

    \b
    Examples:
      horseshoe demo
      horseshoe demo --episodes 10 --engine mujoco
      horseshoe demo --sim
      horseshoe demo --push
    """
    if push:
        if sim or engine or not video:
            raise HorseshoeError("--push goes without --sim, --engine and --no-video")
        _push(policy or "push", episodes or 4, out)
        return
    policy = policy or "u_shape"
    if sim:
        from horseshoe.policies.cli import demo as in_simulation

        ctx.invoke(in_simulation, episodes=episodes or 20, out=out, policy=policy)
        return
    robot = _robot()
    if engine is None:
        engine = "pybullet" if importlib.util.find_spec("pybullet") else "mujoco"
        if engine == "mujoco":
            click.echo("PyBullet is not installed (there are no wheels from Python 3.12 on): the arms move in MuJoCo")
    _run(robot, engine, policy, episodes or 3, out, video)


def _push(policy: str, episodes: int, out: Path) -> None:
    from horseshoe.ros_ws import push_demo
    from horseshoe.sim.push.film import save_strip

    _need("rclpy")
    _need("warp")
    click.echo(f"policy {policy}: six robots on two wheels, unseen shapes, a shove half-way; starting ...")
    begin, graph = time.monotonic(), out / "graph"
    arguments = {"policy": policy, "robots": 6, "goals": "unseen", "seed": PUSH_SEED, "episodes": episodes}
    summary = push_demo.run_graph(graph, {**arguments, "shove": "true", "patience": PATIENCE})
    click.echo(f"\n{push_demo.table(summary['outcomes'])}\n")
    save_strip(out / "demo.png", sorted(graph.glob("episode_*.npz")))
    files = {"picture": out / "demo.png", "video": graph / "film.mp4", "numbers": graph / "summary.json"}
    for name, file in files.items():
        if file.exists():
            click.echo(f"{name:9}{file}")
    click.echo(f"all in {(time.monotonic() - begin) / 60:.1f} min")


def _need(module: str, otherwise: str = "") -> None:
    if importlib.util.find_spec(module) is None:
        extra = {"rclpy": "ros", "xarm": "robot", "warp": "push"}[module]
        raise HorseshoeError(f"this needs {module}: pip install 'horseshoe[{extra}]'{otherwise}")


def _robot() -> str:
    """`emulated`, or `sim` where no controller can be emulated. May begin anew in a network of its own."""
    from horseshoe.hardware.emulator import cannot_bind

    _need("rclpy", "; --sim does without")
    _need("xarm", "; --sim does without")
    reason = cannot_bind("127.0.0.1") or cannot_bind("127.0.0.2")
    if not reason:
        return "emulated"
    if NETWORK not in os.environ and _own_network(["true"]):
        click.echo("the ports of a control box need root: a network of its own")
        command = _network_command([sys.executable, "-m", "horseshoe", *sys.argv[1:]])
        sys.stdout.flush()
        os.execvpe(command[0], command, {**os.environ, NETWORK: "1"})
    click.echo(f"{reason}\nwithout emulated controllers and SDK, then: the nodes drive the simulated arms directly")
    return "sim"


def _network_command(command: list[str]) -> list[str]:
    """A command in a network namespace of its own, in which any port is free."""
    return ["unshare", "-Urn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]


def _own_network(command: list[str]) -> bool:
    """Whether a command succeeds there."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run(_network_command(command), capture_output=True).returncode == 0


def _run(robot: str, engine: str, policy: str, episodes: int, out: Path, video: bool) -> None:
    from horseshoe.policies.cli import DEMO_SEED
    from horseshoe.ros_ws import episodes as graph
    from horseshoe.ros_ws.report import write_report

    shutil.rmtree(out / "graph", ignore_errors=True)  # of the last demo
    outcomes: list[graph.Outcome] = []
    begin = time.monotonic()

    def tell(outcome: graph.Outcome) -> None:
        outcomes.append(outcome)
        slow = f", the world was {outcome['slow']:.1f} s behind" if outcome.get("slow") else ""
        took = f" after {outcome['seconds']:.1f} s" if "seconds" in outcome else ""
        why = f": {outcome['reason']}" if "reason" in outcome else ""
        delays = ", ".join(f"{1000 * d:.0f}" for d in outcome.get("delays", {}).values())
        said = f" (servo target to motion: {delays} ms)" if delays and len(outcomes) == 1 else ""
        click.echo(f"episode {len(outcomes)} of {episodes}: {outcome['name']}{took}{slow}{why}{said}")

    arms = "the unmodified xArm SDK, two emulated controllers" if robot == "emulated" else "simulated arms"
    click.echo(f"policy {policy}: ROS 2 nodes, {arms}, {engine}; starting, about 20 s to the first motion ...")
    arguments = {
        "robot": robot,
        "engine": engine,
        "policy": policy,
        "seed": str(DEMO_SEED),
        "record": "bag",
        "patience": str(PATIENCE),
        "allow_out_of_contract": "true",
    }
    bags = [log / "bag" for log in graph.run(arguments, episodes, out / "graph", tell)]
    click.echo(f"\n{graph.table(outcomes)}\n")
    pages = []
    for number, bag in enumerate(bags, start=1):
        name = "report" if number == 1 else f"report_{number}"
        click.echo(f"drawing {name}.html{' and its video' if video else ''} ...")
        pages.append(write_report(bag, out / f"{name}.html", video))
    for page in pages:
        click.echo(f"report   {page}")
        if video:
            click.echo(f"video    {page.with_suffix('.mp4')}")
    click.echo(f"all in {(time.monotonic() - begin) / 60:.1f} min")
