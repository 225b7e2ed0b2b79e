import io
import json

import numpy as np
import pytest
from click.testing import CliRunner

from horseshoe import demonstrations
from horseshoe.errors import HorseshoeError
from horseshoe.sim.push import dataset
from horseshoe.sim.push.cli import plan
from horseshoe.sim.push.planner import Exploded, PlannerConfig

RECIPE = dataset.Recipe("near", (4,), 0, PlannerConfig(iterations=0, candidates=2, restarts=1))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of two scenes, made in a process of its own."""
    folder = tmp_path_factory.mktemp("push")
    return folder, dataset.make(folder, 2, RECIPE)


def test_every_scene_is_kept_or_counted_as_failed(made):
    folder, manifest = made
    assert manifest["totals"]["kept"] + manifest["totals"]["failed"] == 2
    shards = list(demonstrations.read(folder))
    assert sum(len(shard["scores"]) for shard in shards) == manifest["totals"]["kept"] > 0
    for shard in shards:
        assert (shard["scores"] > 0.75).all()
        steps = shard["offsets"][-1]
        assert shard["actions"].shape == shard["robots"].shape == shard["velocities"].shape == (steps, 4, 2)
        assert shard["particles"].shape == (steps, dataset.SHOWN, 2)
        first = slice(shard["offsets"][0], shard["offsets"][1])
        np.testing.assert_allclose(
            np.diff(shard["robots"][first], axis=0), shard["actions"][first][:-1] * 0.02, atol=1e-5
        )


def test_a_scene_that_explodes_is_counted_as_failed(monkeypatch):
    def explode(*_):
        raise Exploded("the simulated object exploded")

    monkeypatch.setattr(dataset, "plan", explode)
    _, _, entry = dataset.make_shard((RECIPE, 0, 2))
    assert (entry["kept"], entry["failed"]) == (0, 2)


def test_a_finished_dataset_is_not_made_again_and_a_corrupt_shard_is(made, monkeypatch):
    folder, manifest = made
    shard = folder / "shard-00000.npz"
    sound = shard.read_bytes()
    stamp = shard.stat().st_mtime_ns
    assert dataset.make(folder, 2, RECIPE)["totals"]["corrupt"] == 0
    assert shard.stat().st_mtime_ns == stamp
    shard.write_bytes(sound[:-20])
    with pytest.raises(HorseshoeError, match=r"shard-00000\.npz: missing or corrupt"):
        list(demonstrations.read(folder))
    done = [dataset.make_shard((RECIPE, 0, 2))]  # in this process: the other one has been tested
    monkeypatch.setattr(dataset, "_pool", lambda executor, jobs: _Done(done))
    assert dataset.make(folder, 2, RECIPE)["totals"]["corrupt"] == 1
    with np.load(shard) as again:
        assert {key: value.shape for key, value in again.items()} == {
            k: v.shape for k, v in next(demonstrations.read(folder)).items()
        }
    new = json.loads((folder / "manifest.json").read_text())["shards"]["shard-00000.npz"]
    assert new["sha256"] == manifest["shards"]["shard-00000.npz"]["sha256"]  # planning is deterministic


class _Done:
    """A pool whose work is already there."""

    def __init__(self, results):
        self._results = results

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def imap_unordered(self, function, jobs):
        return iter(self._results)


def test_a_dataset_may_hold_rollouts_that_were_planned_anew_on_the_way():
    recipe = dataset.Recipe("near", (6,), 2, PlannerConfig(iterations=0), horizon=25)
    content = dataset.make_shard((recipe, 0, 1))[1]
    assert dataset.make_shard((recipe, 0, 1))[1] == content
    with np.load(io.BytesIO(content)) as shard:
        assert len(shard["scores"]) == 1
        assert shard["offsets"][-1] % 25 == 0


def test_a_folder_holds_one_recipe(made):
    with pytest.raises(HorseshoeError, match="another recipe"):
        dataset.make(made[0], 2, dataset.Recipe("wide"))


def test_a_broken_manifest_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(HorseshoeError, match=r"manifest\.json: not a dataset's manifest"):
        list(demonstrations.read(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--robots", "0"], "--robots 0: must be numbers from 1 to 12"),
        (["--robots", "two"], "--robots two: must be numbers"),
        (["--goal", "far"], "goal set 'far' is unknown"),
        (["--goal", "missing.png"], r"goal image missing.png: cannot be read"),
        (["--out", "plan.txt"], "the suffix must be .png, .gif or .mp4"),
        (["--dataset", "4"], "--dataset needs --out"),
        (["--dataset", "4", "--out", "x", "--held-out"], "are kept for evaluation"),
        (["--horizon", "200"], "--horizon 200: must be within [1, 115] decisions"),
        (["--dataset", "4", "--out", "x", "--feedback"], "--feedback: give --horizon too"),
        (["--dataset", "4", "--out", "x", "--horizon", "0"], "--horizon 0: must be within [1, 115] decisions"),
    ],
)
def test_bad_input_on_the_command_line_is_one_clear_error(arguments, message):
    result = CliRunner().invoke(plan, arguments)
    assert isinstance(result.exception, HorseshoeError)
    assert message in str(result.exception)


def test_planning_anew_on_the_way_has_a_whole_episode():
    arguments = ["--goal", "near", "--seed", "3", "--robots", "4", "--iterations", "0", "--horizon", "5"]
    result = CliRunner().invoke(plan, arguments)
    assert result.exit_code == 0, result.output
    assert int(result.output.split(" decisions")[0].split()[-1]) > 8 * 5  # more rounds than the planner's default


def test_a_plan_from_the_command_line_writes_its_picture(tmp_path):
    out = tmp_path / "plan.png"
    result = CliRunner().invoke(plan, ["--goal", "near", "--robots", "4", "--iterations", "0", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "incremental IoU" in result.output
    assert out.stat().st_size > 1000
