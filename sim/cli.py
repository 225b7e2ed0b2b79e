"""Commands of the simulation."""

import json
from pathlib import Path

import click

from horseshoe.bench import source
from horseshoe.configuration import write_atomically


@click.command("sim")
@click.option("--envs", type=click.IntRange(1, 65536), default=512, show_default=True, help="Cells side by side.")
@click.option("--threads", type=click.IntRange(1, 256), default=2, show_default=True, help="After one thread alone.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=9, show_default=True, help="Medians are over these.")
@click.option("--decisions", type=click.IntRange(1, 1000), default=10, show_default=True, help="Steps in a round.")
@click.option("--robosuite-python", envvar="ROBOSUITE_PYTHON", help="Python that has robosuite 1.5.2 and mujoco 3.3.7.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON.")
def bench_sim(
    envs: int, threads: int, rounds: int, decisions: int, robosuite_python: str | None, json_file: Path | None
) -> None:
    """Speed of the assembly environment, as a ratio to raw `mujoco.rollout` in the same run.

    robosuite's TwoArmLift runs beside it if a Python that has it is given; it needs one of its own, with mujoco 3.3.7.

    \b
    Examples:
      horseshoe bench sim
      horseshoe bench sim --envs 256 --threads 1 --json sim.json
      python -m venv peer && peer/bin/pip install robosuite==1.5.2 mujoco==3.3.7
      horseshoe bench sim --robosuite-python peer/bin/python
    """
    benchmark = source("sim")
    result = benchmark.run(envs, threads, rounds, decisions, robosuite_python)
    click.echo(benchmark.table(result))
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(json_file, json.dumps(result, indent=2) + "\n")
