"""`horseshoe plan` and `horseshoe bench push`."""

from pathlib import Path

import click
from tqdm import tqdm

from horseshoe.errors import HorseshoeError


@click.command()
@click.option(
    "--goal", default="wide", show_default=True, help="Goal set (its name or YAML file), or a PNG to push into."
)
@click.option("--shape", default="box", show_default=True, help="With a PNG goal: the object.")
@click.option("--robots", default="6", show_default=True, help="Number of robots; for a dataset also several: 3,4,6.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Which goal of the set; the first one of a dataset.",
)
@click.option("--held-out", is_flag=True, help="Take the goal from those kept for evaluation.")
@click.option("--iterations", default=120, show_default=True, help="Most gradient steps.")
@click.option("--horizon", type=int, help="Receding horizon: plan anew after this many decisions.")
@click.option(
    "--feedback",
    is_flag=True,
    help="With --horizon: plans begin from the law of feedback; in a dataset it acts where the object keeps its shape.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Picture (.png), animation (.gif, .mp4) or dataset folder."
)
@click.option("--dataset", type=int, help="Make a dataset of this many plans.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes for a dataset.")
@click.option("--executor", type=click.Choice(["processes", "ray"]), default="processes", show_default=True)
def plan(
    goal: str,
    shape: str,
    robots: str,
    seed: int,
    held_out: bool,
    iterations: int,
    horizon: int | None,
    feedback: bool,
    out: Path | None,
    dataset: int | None,
    jobs: int,
    executor: str,
) -> None:
    """Plan how robots push an object to a goal, by gradients through a soft-body simulation.

    \b
    horseshoe plan --goal wide --seed 7 --robots 6 --out plan.gif
    horseshoe plan --goal my_goal.png --shape L --out plan.png
    horseshoe plan --dataset 1000 --robots 3,4,6 --jobs 8 --out data/push
    horseshoe plan --dataset 1000 --horizon 10 --iterations 15 --feedback --out data/led
    horseshoe plan --dataset 100000 --executor ray --out data/push   # on a node of a Ray cluster
    """
    counts = _counts(robots)
    if feedback and horizon is None:
        raise HorseshoeError("--feedback: give --horizon too, the decisions after which to plan anew")
    if dataset is not None:
        _dataset(goal, counts, seed, held_out, iterations, horizon, feedback, out, dataset, jobs, executor)
        return
    from horseshoe.sim.push import picture, planner, scenes, shapes
    from horseshoe.sim.push.config import PushConfig
    from horseshoe.sim.push.dataset import MAX_DECISIONS

    if out is not None and out.suffix not in (".png", ".gif", ".mp4"):
        raise HorseshoeError(f"--out {out}: the suffix must be .png, .gif or .mp4")
    if len(counts) > 1:
        raise HorseshoeError("--robots: a single plan takes one number")
    config = PushConfig()
    if goal.endswith(".png"):
        target, area = shapes.from_image(goal, scenes.PARTICLES, config)
        scene = scenes.custom(shape, target, area, seed, counts[0], config)
    else:
        first = scenes.HELD_OUT if held_out else 0
        scene = scenes.sample(scenes.load_goal_set(goal), Path(goal).stem, first + seed, counts[0], config)
    settings = planner.PlannerConfig(iterations=iterations)
    _check_horizon(horizon)
    rounds = -(-MAX_DECISIONS // horizon) if horizon else 0
    with tqdm(total=rounds or iterations, desc=scene.name, unit="plan" if rounds else "step") as bar:

        def progress(step: int, score: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(iou=f"{score:.2f}")

        if horizon is None:
            found = planner.plan(scene, config, settings, seed, progress)
        else:
            found = planner.replan(scene, config, settings, seed, horizon, rounds, progress, feedback)
    reached = "reached" if found.success else "not reached"
    click.echo(f"{scene.name}: goal {reached}, incremental IoU {found.score:.3f} after {len(found.actions)} decisions "
               f"({len(found.actions) * config.control_period:.1f} s), planned in {found.seconds:.1f} s")  # fmt: skip
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        (picture.picture if out.suffix == ".png" else picture.animation)(out, found, scene, config)
        click.echo(f"wrote {out}")


def _counts(robots: str) -> tuple[int, ...]:
    from horseshoe.sim.push.config import MAX_ROBOTS

    try:
        counts = tuple(int(part) for part in robots.split(","))
    except ValueError:
        counts = ()
    if not counts or not all(1 <= count <= MAX_ROBOTS for count in counts):
        raise HorseshoeError(f"--robots {robots}: must be numbers from 1 to {MAX_ROBOTS}, with commas between them")
    return counts


def _check_horizon(horizon: int | None) -> None:
    from horseshoe.sim.push.dataset import MAX_DECISIONS

    if horizon is not None and not 1 <= horizon <= MAX_DECISIONS:
        raise HorseshoeError(f"--horizon {horizon}: must be within [1, {MAX_DECISIONS}] decisions")


def _dataset(
    goal: str,
    counts: tuple[int, ...],
    seed: int,
    held_out: bool,
    iterations: int,
    horizon: int | None,
    feedback: bool,
    out: Path | None,
    count: int,
    jobs: int,
    executor: str,
) -> None:
    from horseshoe.sim.push import dataset, scenes
    from horseshoe.sim.push.planner import PlannerConfig

    if out is None:
        raise HorseshoeError("--dataset needs --out, the folder to write to")
    _check_horizon(horizon)
    if held_out or not 0 <= seed <= scenes.HELD_OUT - count:
        raise HorseshoeError(f"--dataset: seeds from {scenes.HELD_OUT} on are kept for evaluation")
    scenes.load_goal_set(goal)
    recipe = dataset.Recipe(goal, counts, seed, PlannerConfig(iterations=iterations), horizon or 0, feedback)
    with tqdm(total=count, desc="plans", unit="plan") as bar:

        def advance(plans: int) -> None:
            bar.update(plans)

        manifest = dataset.make(out, count, recipe, jobs, executor, advance)
    totals = manifest["totals"]
    click.echo(f"{out}: {totals['kept']} plans kept ({totals['steps']} decisions), {totals['failed']} failed and left "
               f"out, {totals['corrupt']} corrupt shards made again")  # fmt: skip


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("bench/push"), show_default=True, help="Folder.")
@click.option("--seconds", default=2.0, show_default=True, help="Time spent on each measurement.")
def bench_push(out: Path, seconds: float) -> None:
    """Measure the soft-body world, the planner and the policy, beside taichi where it is installed.

    \b
    horseshoe bench push
    horseshoe bench push --seconds 10 --out results/push
    """
    from horseshoe.sim.push.bench import run

    run(out, seconds)
