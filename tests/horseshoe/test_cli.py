"""The command line loads a verb only when it is called and answers a mistake in one line."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from horseshoe import __version__, cli
from horseshoe.errors import ConfigurationError


@click.command()
@click.argument("what")
def fail(what: str) -> None:
    """Fail in the way asked for."""
    if what == "user":
        raise ConfigurationError("cell.yaml", "arms[0].base", "is missing")
    if what in cli.EXTRAS:
        raise ModuleNotFoundError(f"No module named '{what}'", name=what)
    raise KeyError("a bug")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setitem(cli.VERBS, "fail", f"{__name__}:fail")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[fail.callback.__module__])
    return CliRunner()


def test_version_is_that_of_the_package() -> None:
    assert __version__ in CliRunner().invoke(cli.main, ["--version"]).output


def test_an_unknown_verb_is_answered_with_the_valid_ones(run: CliRunner) -> None:
    result = run.invoke(cli.main, ["trian"])
    assert result.exit_code == 2
    assert "no verb 'trian'" in result.stderr
    assert all(verb in result.stderr for verb in cli.VERBS)


def test_a_user_error_is_one_line_on_stderr_and_exit_code_2(run: CliRunner) -> None:
    result = run.invoke(cli.main, ["fail", "user"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "Error: cell.yaml: arms[0].base: is missing\n"


def test_debug_keeps_the_traceback_of_a_user_error(run: CliRunner) -> None:
    assert isinstance(run.invoke(cli.main, ["--debug", "fail", "user"]).exception, ConfigurationError)


@pytest.mark.parametrize(("module", "extra"), [("torch", "train"), ("pybullet_data", "twin")])
def test_a_missing_library_is_answered_with_the_extra_that_brings_it(run: CliRunner, module: str, extra: str) -> None:
    result = run.invoke(cli.main, ["fail", module])
    assert result.exit_code == 2
    assert f"pip install 'horseshoe[{extra}]'" in result.stderr


def test_a_bug_is_not_disguised_as_a_user_error(run: CliRunner) -> None:
    assert isinstance(run.invoke(cli.main, ["fail", "bug"]).exception, KeyError)


def test_every_verb_shows_an_example() -> None:
    for verb in cli.VERBS:
        result = CliRunner().invoke(cli.main, [verb, "--help"])
        assert result.exit_code == 0, f"{verb}: {result.output}"
        assert f"horseshoe {verb}" in result.output, f"the help of {verb} has no example"


def test_the_installed_command_starts() -> None:
    command = Path(sysconfig.get_path("scripts")) / "horseshoe"
    done = subprocess.run([command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: horseshoe")
