"""Commands of the policies: train, export, evaluate, demo."""

from pathlib import Path

import click

from horseshoe import configuration
from horseshoe.errors import HorseshoeError

DEMO_SEED = 20_260  # scenes that no training drew
EVALUATION_SEED = 10_000


@click.command()
@click.argument("task")
@click.option(
    "--run", type=click.Path(path_type=Path), help="Run folder; runs/<task>-<architecture>-<seed> without it."
)
@click.option("--seed", type=int, help="Of everything; the same seed trains the same policy.")
@click.option("--architecture", type=click.Choice(["mlp", "attention"]), help="Of the actor.")
@click.option("--decisions", type=int, help="How many decisions (of a whole cell) to train for.")
@click.option(
    "--from", "initial", type=click.Path(exists=True, path_type=Path), help="Checkpoint to start a new run from."
)
@click.option("--threads", type=int, default=2, show_default=True, help="Cores to use.")
def train(
    task: str,
    run: Path | None,
    seed: int | None,
    architecture: str | None,
    decisions: int | None,
    initial: Path | None,
    threads: int,
) -> None:
    """Train a policy for TASK: a name from config/train, or a YAML file like those.

    A run that was interrupted goes on where its last checkpoint ends when the same command is given again.

    \b
    Examples:
      horseshoe train u_shape
      horseshoe train u_shape --seed 1 --decisions 4000000
      horseshoe train connect --architecture attention
      horseshoe train my_task.yaml --run runs/mine
      tensorboard --logdir runs
    """
    from horseshoe.policies import ppo

    file = Path(task) if task.endswith((".yaml", ".yml")) else _task_file(task)
    given = {"seed": seed, "architecture": architecture, "decisions": decisions}
    settings = {**configuration.read_yaml(file), **{k: v for k, v in given.items() if v is not None}}
    try:
        config = configuration.load(ppo.TrainConfig, settings)
    except HorseshoeError as error:
        raise HorseshoeError(f"{file}: {error}") from error
    folder = run or Path("runs") / f"{file.stem}-{config.architecture}-{config.seed}"
    ppo.train(config, folder, initial, threads)
    click.echo(f"Trained. Next: horseshoe export {folder} policies/pretrained/{file.stem}")


def _task_file(task: str) -> Path:
    folder = configuration.resource("config/train")
    names = sorted(p.stem for p in folder.glob("*.yaml"))
    if task not in names:
        raise HorseshoeError(f"task '{task}' is unknown; choose from {', '.join(names)} or give a YAML file")
    return folder / f"{task}.yaml"


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def export(run: Path, folder: Path) -> None:
    """Export the checkpoint in RUN to FOLDER: policy.onnx, contract.yaml, card.md and its learning curve.

    \b
    Example:
      horseshoe export runs/u_shape-mlp-0 policies/pretrained/u_shape
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


@click.command()
@click.argument("policy")
@click.option("--episodes", type=click.IntRange(1, 1_000_000), default=200, show_default=True)
@click.option("--seed", type=int, default=EVALUATION_SEED, show_default=True, help="Not one that training used.")
@click.option("--engine", default="mujoco", show_default=True, help="mujoco, or pybullet, the engine no training saw.")
@click.option(
    "--noise", type=float, default=1.0, show_default=True, help="Scale of the contract's sensor and action noise."
)
@click.option("--delay", callback=_delay, help="Transport delay [s], one value or LOW:HIGH; the contract's without it.")
@click.option("--record", type=click.Path(path_type=Path), help="Video (mp4 or gif) of the first episodes.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the summary as JSON.")
@click.option("--picture", type=click.Path(path_type=Path), help="Write the summary as a PNG.")
@click.option("--save", is_flag=True, help="Write the result into the policy's contract and card.")
def evaluate(
    policy: str,
    episodes: int,
    seed: int,
    engine: str,
    noise: float,
    delay: tuple[float, float] | None,
    record: Path | None,
    json_file: Path | None,
    picture: Path | None,
    save: bool,
) -> None:
    """Run POLICY (a shipped one's name, or a folder) on episodes it never saw and count.

    \b
    Examples:
      horseshoe evaluate u_shape --episodes 1000
      horseshoe evaluate u_shape --noise 0 --delay 0
      horseshoe evaluate u_shape --delay 0.2 --record late.mp4 --json late.json
      horseshoe evaluate u_shape --engine pybullet --episodes 100
    """
    from horseshoe.policies.card import write_card
    from horseshoe.policies.evaluate import evaluate as run
    from horseshoe.policies.runtime import OnnxPolicy, add_result

    loaded = OnnxPolicy(policy)
    result = run(loaded, episodes, seed, engine, noise, delay, record)
    click.echo(result.table())
    if json_file:
        result.save_json(json_file)
    if picture:
        result.save_picture(picture)
    if save:
        options = "" if noise == 1.0 else f" --noise {noise:g}"
        options += "" if delay is None else f" --delay {delay[0]:g}:{delay[1]:g}"
        options += "" if engine == "mujoco" else f" --engine {engine}"
        command = f"horseshoe evaluate {loaded.folder.name} --episodes {episodes} --seed {seed}{options}"
        add_result(loaded.folder, {"command": command, **result.summary()})
        write_card(loaded.folder)


@click.command()
@click.option("--episodes", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/demo"), show_default=True)
def demo(episodes: int, out: Path) -> None:
    """Watch the shipped policy: a table, a picture and a video of unseen episodes in simulation.

    \b
    Example:
      horseshoe demo --episodes 20
    """
    from horseshoe.policies.evaluate import evaluate as run
    from horseshoe.policies.runtime import OnnxPolicy

    policy = OnnxPolicy("u_shape")
    result = run(policy, episodes, DEMO_SEED, video=out / "demo.mp4", video_episodes=6)
    result.save_json(out / "demo.json")
    result.save_picture(out / "demo.png")
    click.echo(result.table())
    click.echo(f"video    {out / 'demo.mp4'}\npicture  {out / 'demo.png'}")
