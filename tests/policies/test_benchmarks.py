"""Benchmarks that take hours refuse what they cannot do at once, and write nothing."""

from pathlib import Path

import pytest

pytest.importorskip("mujoco")
pytest.importorskip("pybullet")
pytest.importorskip("rclpy")

from horseshoe.bench import source
from horseshoe.errors import HorseshoeError


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--episodes", "0"], "--episodes: 0 is below 1"),
        (["--seed", "0"], "--seed: 0 is a seed of the training"),
        (["patience=3"], "'patience=3' is no launch argument; write name:=value"),
        (["patiense:=3"], "no launch argument 'patiense'"),
        (["patience:=much"], "patience: expected float, got str 'much'"),
    ],
)
def test_success_through_the_graph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises((SystemExit, HorseshoeError)) as refusal:
        source("graph_success").main(["--out", str(out), *arguments])
    assert says in capsys.readouterr().err + str(refusal.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--minutes", "30"], "--warm-up: 32 is not above 0 and below the 30 of --minutes"),
        (["--warm-up", "0"], "--warm-up: 0 is not above 0"),
        (["--run", "mpl-0"], "--run: 'mpl-0' is no architecture (mlp, attention) and seed"),
        (["--run", "mlp"], "--run: 'mlp' is no architecture"),
        (["--episodes", "0"], "--episodes and --at-once must be 1 at least"),
        (["--card", "nowhere"], "--card: nowhere is no policy folder"),
    ],
)
def test_learning_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        source("learning_curves").main(["--out", str(out), *arguments])
    assert says in capsys.readouterr().err
    assert not out.exists()


def test_what_a_command_of_the_learning_curves_says_when_it_fails_is_shown() -> None:
    with pytest.raises(SystemExit, match=r"horseshoe export nowhere there:\n(.|\n)*nowhere.*no such checkpoint"):
        source("learning_curves").finish("export", "nowhere", "there")
