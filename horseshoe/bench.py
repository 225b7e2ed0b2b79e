"""`horseshoe bench`: the benchmarks of the rooms, each imported only when it is called."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import click

from horseshoe.errors import HorseshoeError

BENCHMARKS: dict[str, str] = {
    "sim": "horseshoe.sim.cli:bench_sim",
    "control": "horseshoe.hardware.cli:bench_control",
    "push": "horseshoe.sim.push.cli:bench_push",
}


def source(name: str) -> ModuleType:
    """The module `benchmarks/<name>.py`, which is part of the source tree and not installed.

    Raises:
        HorseshoeError: Horseshoe does not run from a source tree.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "benchmarks" / f"{name}.py").is_file():
        raise HorseshoeError("benchmarks are part of the source tree: clone it and `pip install -e .` there")
    if str(root) not in sys.path:
        sys.path.append(str(root))
    return import_module(f"benchmarks.{name}")


class _Benchmarks(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(BENCHMARKS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in BENCHMARKS:
            return None
        module, _, attribute = BENCHMARKS[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Benchmarks)
def bench() -> None:
    """Measure speed, each beside what it competes with in the same run.

    \b
    Examples:
      horseshoe bench sim
      horseshoe bench control --seconds 10
      horseshoe bench push
    """
