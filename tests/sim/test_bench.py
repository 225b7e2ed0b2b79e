"""The benchmark measures what it says: the raw side repeats exactly what the environment did."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("mujoco")
from mujoco.rollout import rollout

from horseshoe import cli
from horseshoe.bench import source
from horseshoe.sim.assembly import world as worlds
from horseshoe.sim.assembly.env import make_vector
from horseshoe.sim.assembly.world import BatchWorld


def test_raw_rollout_gets_the_states_and_controls_the_environment_had() -> None:
    env = make_vector(4, "connect", n_threads=2, pool=2, start_batch=8)
    env.reset(seed=0)
    actions = np.random.default_rng(0).normal(0, 0.2, (2, 4, 2, 7))
    kept = source("sim").record(env, actions)
    assert len(kept) == 2
    models, state, control = kept[1]
    assert control.shape[:2] == (4, 20)
    states, _ = rollout(models, env.world._data[0], state, control, control_spec=worlds._SPEC, nstep=20)
    # Warm starts differ between one rollout of 20 steps and ten of 2; the motion does not.
    np.testing.assert_allclose(states[:, -1], env.world.trace.states[-1], atol=1e-4)


def test_no_cell_is_further_in_its_episode_than_that_lasts() -> None:
    env = source("sim").make_env(64, 1)
    assert (env.steps[~env.whole] < env._assisted_horizon).all()
    assert (env.steps[env.whole] > env._assisted_horizon).any()


@pytest.mark.parametrize("engine", ["mujoco", "pybullet"])
def test_a_force_of_the_twin_gap_moves_a_free_block_while_it_lasts(engine: str) -> None:
    pytest.importorskip("pybullet")
    gap = source("twin_gap")
    kind = BatchWorld if engine == "mujoco" else gap.TwinWorld
    bench = gap.Bench(kind(gap.CELL, gap.BLUEPRINT, 1, gap.PhysicsRange(), pool=1))
    bench.start(gap.APART, gap.HOME, 0.06)
    with bench.wrench(1, np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])):
        bench.tick(ticks=10)
    slid = bench.tick(ticks=40).position[0] - gap.APART
    assert slid[1, 1] > 0.02
    np.testing.assert_allclose(slid[[0, 2]], 0.0, atol=1e-3)
    np.testing.assert_allclose(bench.tick(ticks=40).position[0] - gap.APART, slid, atol=1e-3)


def test_the_command_writes_its_ratios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark, file = source("sim"), tmp_path / "out/sim.json"

    def small(n_envs: int, threads: int) -> object:
        env = make_vector(n_envs, "connect", n_threads=threads, pool=2, start_batch=8)
        env.reset(seed=0)
        return env

    monkeypatch.setattr(benchmark, "make_env", small)
    monkeypatch.setattr(benchmark.seconds_per_start, "__defaults__", (16,))
    monkeypatch.delenv("ROBOSUITE_PYTHON", raising=False)
    arguments = ["bench", "sim", "--envs", "4", "--threads", "2", "--rounds", "2", "--decisions", "2"]
    result = CliRunner().invoke(cli.main, [*arguments, "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert "robosuite     skipped" in result.stdout
    measured = json.loads(file.read_text())
    assert {"ratio_to_raw_rollout", "env_steps_per_second", "physics_steps_per_second"} <= set(measured)
    assert measured["physics_steps_per_second"] == pytest.approx(20 * measured["env_steps_per_second"], rel=0.01)
    assert measured["ratio_to_raw_rollout"] < 1.5
    assert (measured["threads"], measured["more_threads"]["threads"]) == (1, 2)
