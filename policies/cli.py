"""Commands of the policies: train, merge, distill, export, evaluate, demo."""

from pathlib import Path
from typing import Any

import click

from horseshoe import configuration
from horseshoe.errors import HorseshoeError

DEMO_SEED = 20_260  # scenes that no training drew
EVALUATION_SEED = 10_000
PUSH_ENV = "horseshoe/CoopPush-v0"


@click.command()
@click.argument("task")
@click.option(
    "--run", type=click.Path(path_type=Path), help="Run folder; runs/<task>-<architecture>-<seed> without it."
)
@click.option("--seed", type=int, help="Of everything; the same seed trains the same policy.")
@click.option("--architecture", type=click.Choice(["mlp", "attention"]), help="Of the actor.")
@click.option("--decisions", type=int, help="How many decisions (of a whole cell) to train for.")
@click.option(
    "--from",
    "initial",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checkpoint that a new run goes on from.",
)
@click.option("--processes", type=int, help="That train together, each on as many cells and on a core of its own.")
@click.option(
    "--threads", type=click.IntRange(1), default=2, show_default=True, help="Cores to use if there is one process."
)
def train(
    task: str,
    run: Path | None,
    seed: int | None,
    architecture: str | None,
    decisions: int | None,
    initial: Path | None,
    processes: int | None,
    threads: int,
) -> None:
    """Train a policy for TASK: a name from config/train, or a YAML file like those.

    A run that was interrupted goes on where its last checkpoint ends when the same command is given again.

    \b
    Examples:
      horseshoe train u_shape --seed 1
      horseshoe train connect --decisions 4000000
      horseshoe train connect --architecture attention
      horseshoe train u_shape --processes 16
      horseshoe train push --architecture mlp
      horseshoe train push_further --from runs/push/checkpoint.safetensors --processes 2
      horseshoe train push_finer --from runs/push_further/checkpoint.safetensors --processes 2
      horseshoe train my_task.yaml --run runs/mine
      tensorboard --logdir runs
    """
    from horseshoe.policies import ppo, push_ppo

    file = _task_file(task)
    given = {"seed": seed, "architecture": architecture, "decisions": decisions, "processes": processes}
    settings = configuration.load(dict[str, Any], file) | {k: v for k, v in given.items() if v is not None}
    pushing = settings.get("env") == PUSH_ENV
    kind: Any = push_ppo.PushPPOConfig if pushing else ppo.TrainConfig
    try:
        config = configuration.load(kind, settings)
        if not pushing:
            ppo.check(config)
    except HorseshoeError as error:
        raise HorseshoeError(f"{file}: {error}") from error
    folder = run or Path("runs") / f"{file.stem}-{config.architecture}-{config.seed}"
    if pushing:
        push_ppo.train(config, folder, initial)
    else:
        ppo.train(config, folder, initial, threads)
    click.echo(f"Trained. Next: horseshoe export {folder} policies/pretrained/{file.stem}")


@click.command()
@click.argument("task")
@click.argument("holding", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("otherwise", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), default=Path("runs/merged"), show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="Cores to use.")
def merge(task: str, holding: Path, otherwise: Path, run: Path, threads: int) -> None:
    """Teach one policy for TASK what two checkpoints do: HOLDING while a hand holds its block, OTHERWISE the rest.

    \b
    Example:
      horseshoe merge u_shape_further runs/lift/checkpoint.safetensors runs/u_shape/checkpoint.safetensors
      horseshoe train u_shape_further --from runs/merged/checkpoint.safetensors --run runs/further
    """
    from horseshoe.policies import merge as merging
    from horseshoe.policies import ppo

    merging.merge(configuration.load(ppo.TrainConfig, _task_file(task)), holding, otherwise, run, threads)
    click.echo(f"Merged. Next: horseshoe train {task} --from {run / 'checkpoint.safetensors'} --run runs/further")


def _task_file(task: str) -> Path:
    if task.endswith((".yaml", ".yml")):
        return Path(task)
    folder = configuration.resource("config/train")
    names = sorted(p.stem for p in folder.glob("*.yaml"))
    if task not in names:
        raise HorseshoeError(f"task '{task}' is unknown; choose from {', '.join(names)} or give a YAML file")
    return folder / f"{task}.yaml"


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), help="Run folder; runs/push-<architecture>-<seed> without it.")
@click.option("--architecture", type=click.Choice(["attention", "mlp"]), help="Of the policy; attention without it.")
@click.option("--dagger", type=int, help="Rounds in which the policy drives and is taught; none without it.")
@click.option("--episodes", type=int, help="Per round and number of robots.")
@click.option("--ropes", type=int, help="Further episodes, likewise, with a rope to be bent; none without it.")
@click.option("--steps", type=int, help="Gradient steps per round; cloning is the first.")
@click.option("--width", type=int, help="Of a token.")
@click.option("--layers", type=int, help="Attention layers.")
@click.option("--batch", type=int, help="Decisions per gradient step, each of all robots of a scene.")
@click.option("--neighbours", type=int, help="How many of the nearest robots a robot sees.")
@click.option("--particles", type=int, help="Points of the object, and of the goal, that a robot sees.")
@click.option("--gain", type=float, help="Factor on the exported policy's velocities; 1.6 without it.")
@click.option("--seed", type=int, help="Of everything; the same seed gives the same policy.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes for the rounds.")
def distill(dataset: Path, run: Path | None, jobs: int, **given: Any) -> None:
    """Distil DATASET, a folder that `horseshoe plan --dataset` wrote, into a policy for pushing.

    A run that was interrupted goes on where its last checkpoint ends when the same command is given again.

    \b
    Examples:
      horseshoe distill data/push
      horseshoe distill data/push --dagger 4 --run runs/push
      horseshoe distill data/push --architecture mlp
    """
    from horseshoe.policies import distill as distillation

    settings = {"dataset": str(dataset), **{k: v for k, v in given.items() if v is not None}}
    config = configuration.load(distillation.DistillConfig, settings)
    folder = run or Path("runs") / f"push-{config.architecture}-{config.seed}"
    distillation.distill(config, folder, jobs)
    click.echo(f"Distilled. Next: horseshoe export {folder} policies/pretrained/push")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def export(run: Path, folder: Path) -> None:
    """Export the checkpoint in RUN to FOLDER: policy.onnx, contract.yaml, card.md and its learning curve.

    \b
    Examples:
      horseshoe export runs/u_shape-mlp-0 policies/pretrained/u_shape
      horseshoe export runs/push-attention-0 policies/pretrained/push
    """
    from horseshoe.policies.card import write_card
    from horseshoe.policies.export import export as write

    difference = write(run, folder)
    write_card(folder)
    click.echo(f"{folder}: torch and ONNX differ by at most {difference:.1e} on recorded observations")


def _delay(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        ends = [float(part) for part in value.split(":")]
    except ValueError:
        ends = []
    if len(ends) not in (1, 2):
        raise click.BadParameter("give seconds, such as 0.1, or a range, such as 0:0.2")
    return ends[0], ends[-1]


def _suffix(*suffixes: str) -> Any:
    """A callback that refuses a file of another kind before anything has run."""

    def check(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
        if value is not None and value.suffix not in suffixes:
            raise click.BadParameter(f"'{value}': give a file that ends with {' or '.join(suffixes)}")
        return value

    return check


def _disturbance(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in value:
        name, _, number = text.partition("=")
        try:
            found[name] = int(number) if number.lstrip("-").isdigit() else float(number)
        except ValueError as error:
            raise click.BadParameter(f"'{text}': give NAME=NUMBER, such as density=2") from error
    return found


@click.command()
@click.argument("policy")
@click.option("--episodes", type=click.IntRange(1, 1_000_000), default=200, show_default=True)
@click.option(
    "--seed",
    type=click.IntRange(0),
    help=f"Not one that training used; {EVALUATION_SEED} without it, 0 for pushing, where all of them are kept apart.",
)
@click.option("--engine", default="mujoco", show_default=True, help="mujoco, or pybullet, the engine no training saw.")
@click.option(
    "--noise", type=float, default=1.0, show_default=True, help="Scale of the contract's sensor and action noise."
)
@click.option("--delay", callback=_delay, help="Transport delay [s], one value or LOW:HIGH; the contract's without it.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_suffix(".mp4", ".gif"),
    help="Video (mp4 or gif) of the first episodes.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the summary as JSON.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_suffix(".png"),
    help="Write the summary as a PNG.",
)
@click.option("--save", is_flag=True, help="Write the result into the policy's contract and card.")
@click.option("--robots", type=int, help="Pushing: how many; 6 without it.")
@click.option("--goals", help="Pushing: goal set, its name or a YAML file; wide without it.")
@click.option(
    "--disturbance",
    "disturbances",
    multiple=True,
    callback=_disturbance,
    help="Pushing: NAME=NUMBER, again for each: density, stiffness, current, gust, gust_chance, dead_robots, "
    "goal_speed.",
)
@click.option(
    "--baseline",
    type=click.Choice(["open-loop", "replanning", "feedback", "geometric"]),
    help="Pushing: run this instead of the policy, on the same scenes.",
)
def evaluate(
    policy: str,
    episodes: int,
    seed: int | None,
    engine: str,
    noise: float,
    delay: tuple[float, float] | None,
    record: Path | None,
    json_file: Path | None,
    picture: Path | None,
    save: bool,
    robots: int | None,
    goals: str | None,
    disturbances: dict[str, float],
    baseline: str | None,
) -> None:
    """Run POLICY (a shipped one's name, or a folder) on episodes it never saw and count.

    \b
    Examples:
      horseshoe evaluate u_shape --episodes 1000
      horseshoe evaluate u_shape --noise 0 --delay 0
      horseshoe evaluate u_shape --delay 0.2 --record late.mp4 --json late.json
      horseshoe evaluate u_shape --engine pybullet --episodes 100
      horseshoe evaluate push --episodes 50 --robots 4 --goals unseen
      horseshoe evaluate push --episodes 50 --disturbance density=2 --disturbance gust=8
      horseshoe evaluate push --episodes 50 --baseline open-loop
    """
    from horseshoe import contract as contracts
    from horseshoe.policies import runtime
    from horseshoe.policies.card import write_card
    from horseshoe.policies.evaluate import Evaluation
    from horseshoe.policies.evaluate import evaluate as assemble
    from horseshoe.policies.evaluate_push import evaluate as push

    folder = runtime.find(policy)
    of_pushing = {"--robots": robots, "--goals": goals, "--disturbance": disturbances or None, "--baseline": baseline}
    of_assembly = {"--engine": engine if engine != "mujoco" else None, "--noise": noise if noise != 1.0 else None}
    pushing = contracts.load(folder).env == PUSH_ENV
    for option, value in (of_assembly if pushing else of_pushing).items():
        if value is not None:
            raise HorseshoeError(f"{option}: {folder.name} is a policy for {'pushing' if pushing else 'assembly'}")
    result: Evaluation
    if pushing:
        seed, robots, goals = seed or 0, 6 if robots is None else robots, goals or "wide"
        result = push(runtime.TokenPolicy(policy), episodes, seed, robots, goals, delay, disturbances, baseline, record)
    else:
        seed = EVALUATION_SEED if seed is None else seed
        result = assemble(runtime.OnnxPolicy(policy), episodes, seed, engine, noise, delay, record)
    click.echo(result.table())
    if json_file:
        result.save_json(json_file)
    if picture:
        result.save_picture(picture)
    if save:
        options = "" if noise == 1.0 else f" --noise {noise:g}"
        options += "" if delay is None else f" --delay {delay[0]:g}:{delay[1]:g}"
        options += "" if engine == "mujoco" else f" --engine {engine}"
        options += "" if robots in (None, 6) else f" --robots {robots}"
        options += "" if goals in (None, "wide") else f" --goals {goals}"
        options += "".join(f" --disturbance {name}={value:g}" for name, value in disturbances.items())
        options += "" if baseline is None else f" --baseline {baseline}"
        command = f"horseshoe evaluate {folder.name} --episodes {episodes} --seed {seed}{options}"
        runtime.add_result(folder, {"command": command, **result.summary()})
        write_card(folder)


@click.command()
@click.option("--episodes", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/demo"), show_default=True)
@click.option("--policy", default="u_shape", show_default=True, help="A shipped policy's name, or a folder.")
def demo(episodes: int, out: Path, policy: str) -> None:
    """Watch the shipped policy: a table, a picture and a video of unseen episodes in simulation.

    \b
    Example:
      horseshoe demo --sim --episodes 20
    """
    from horseshoe.policies.evaluate import evaluate as run
    from horseshoe.policies.runtime import OnnxPolicy

    result = run(OnnxPolicy(policy), episodes, DEMO_SEED, video=out / "demo.mp4", video_episodes=6)
    result.save_json(out / "demo.json")
    result.save_picture(out / "demo.png")
    click.echo(result.table())
    click.echo(f"video    {out / 'demo.mp4'}\npicture  {out / 'demo.png'}")
