"""The `horseshoe` command: a table of verbs, each imported only when it is called."""

from importlib import import_module
from typing import Any

import click

from horseshoe import __version__
from horseshoe.errors import HorseshoeError

# verb: "module:click command". The rooms own their commands; this is the only list of them.
VERBS: dict[str, str] = {
    "train": "horseshoe.policies.cli:train",
    "plan": "horseshoe.sim.push.cli:plan",
    "merge": "horseshoe.policies.cli:merge",
    "distill": "horseshoe.policies.cli:distill",
    "export": "horseshoe.policies.cli:export",
    "evaluate": "horseshoe.policies.cli:evaluate",
    "demo": "horseshoe.ros_ws.demo:demo",
    "bench": "horseshoe.bench:bench",
    "emulator": "horseshoe.hardware.cli:emulator",
    "report": "horseshoe.ros_ws.cli:report",
    "up": "horseshoe.ros_ws.cli:up",
}

# Which extra brings a module that `pip install horseshoe` alone does not.
EXTRAS = {
    "gymnasium": "sim",
    "imageio": "sim",
    "imageio_ffmpeg": "sim",
    "jinja2": "sim",
    "matplotlib": "sim",
    "mujoco": "sim",
    "pybullet": "twin",
    "pybullet_data": "twin",
    "warp": "push",
    "xarm": "robot",
    "rclpy": "ros",
    "rosbags": "ros",
    "onnx": "train",
    "safetensors": "train",
    "stable_baselines3": "train",
    "torch": "train",
}


class _Refusal(click.ClickException):
    """What the user gave cannot be used: one line on stderr, exit code 2."""

    exit_code = 2


class Verbs(click.Group):
    """A click group whose commands come from a table and are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, by name."""
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of a verb."""
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or list those there are."""
        verb = args[0]
        if verb not in VERBS and not verb.startswith("-"):
            ctx.fail(f"no verb '{verb}'; the verbs are {', '.join(self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; what the user can put right becomes one line instead of a traceback."""
        try:
            return super().invoke(ctx)
        except HorseshoeError as error:
            if ctx.params["debug"]:
                raise
            raise _Refusal(" ".join(str(error).split())) from error
        except ModuleNotFoundError as error:
            extra = EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None or ctx.params["debug"]:
                raise
            raise _Refusal(f"this needs {error.name}: pip install 'horseshoe[{extra}]'") from error


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Sim-to-real control for robots that manipulate together.

    Every verb has examples in its own help, such as `horseshoe train --help`.
    """
