"""An evaluation counts every episode once, on scenes training never saw, and says what failed."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from horseshoe import cli, configuration
from horseshoe import contract as contracts
from horseshoe.errors import ConfigurationError, HorseshoeError
from horseshoe.policies import evaluate as evaluation
from horseshoe.policies.evaluate import Evaluation, environment_of, evaluate
from horseshoe.policies.runtime import OnnxPolicy, find
from tests.policies.conftest import TINY

SEED = 77


@pytest.fixture(scope="module")
def loaded(policy: Path) -> OnnxPolicy:
    return OnnxPolicy(policy)


def test_it_runs_as_many_episodes_as_asked_for_and_repeats_for_a_seed(
    loaded: OnnxPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "MAX_ENVS", 3)  # more episodes than environments
    first, second = (evaluate(loaded, 5, SEED, threads=1) for _ in range(2))
    assert len(first.outcomes) == len(first.seconds) == len(first.delays) == 5
    assert first.outcomes == second.outcomes
    np.testing.assert_array_equal(first.delays, second.delays)
    assert (first.delays <= 0.2 + 1e-9).all()
    assert (first.seconds <= 1.0 + 1e-9).all()
    summary = first.summary()
    assert summary["episodes"] == 5
    assert sum(summary["failures"].values()) + first.successes == 5
    assert summary["ci95"][0] <= summary["success_rate"] <= summary["ci95"][1]


def test_the_seed_of_the_training_is_refused(loaded: OnnxPolicy) -> None:
    with pytest.raises(HorseshoeError, match=f"--seed: {TINY.seed} is a seed of the training"):
        evaluate(loaded, 1, TINY.seed, threads=1)


def test_the_whole_task_is_evaluated_whatever_the_curriculum_was(loaded: OnnxPolicy) -> None:
    assert loaded.contract.environment["starts"]["assisted"] == 0.5
    whole = environment_of(loaded, 1.0, None)
    assert "assisted" not in whole["starts"]
    assert "rest_scale" not in whole["task"]


def test_noise_and_delay_are_scaled_and_set_as_asked(loaded: OnnxPolicy) -> None:
    trained = loaded.contract.environment["noise"]
    given = environment_of(loaded, 0.5, (0.1, 0.1))["noise"]
    assert given["position"] == pytest.approx(0.5 * trained["position"])
    assert given["block_latency"] == pytest.approx([0.5 * v for v in trained["block_latency"]])
    assert given["delay"] == [0.1, 0.1]


@pytest.mark.parametrize(
    ("noise", "delay", "message"),
    [
        (-1.0, None, "--noise: -1.0 is below 0"),
        (1.0, (0.3, 0.2), "--delay"),
        (1.0, (0.0, 9.0), "--delay.*within 0 to 0.4 s"),
    ],
)
def test_impossible_noise_or_delay_is_refused(
    loaded: OnnxPolicy, noise: float, delay: tuple[float, float] | None, message: str
) -> None:
    with pytest.raises(HorseshoeError, match=message):
        environment_of(loaded, noise, delay)


def test_a_policy_whose_observation_is_another_is_refused_by_field(policy: Path, tmp_path: Path) -> None:
    contract = contracts.load(policy)
    fields = list(contract.observation)
    fields[2] = dataclasses.replace(fields[2], unit="mm")
    (tmp_path / contracts.WEIGHTS).write_bytes((policy / contracts.WEIGHTS).read_bytes())
    configuration.save_yaml(dataclasses.replace(contract, observation=tuple(fields)), tmp_path / contracts.FILE)
    with pytest.raises(ConfigurationError, match=r"contract.yaml: observation\[2\].*gripper_opening.*'mm'"):
        evaluate(OnnxPolicy(tmp_path), 1, SEED, threads=1)


def test_the_interval_is_wilsons_and_times_are_those_of_successes() -> None:
    outcomes = ["success"] * 97 + ["dropped"] * 2 + ["collision"]
    seconds = np.array([5.0] * 97 + [16.0] * 3)
    summary = Evaluation(outcomes, seconds, np.zeros(100), {"policy": "x"}).summary()
    assert summary["success_rate"] == 0.97
    assert summary["ci95"] == pytest.approx([0.9155, 0.9897], abs=1e-4)
    assert summary["time_to_success_median"] == 5.0
    assert summary["success_by_time"]["10"] == 0.97
    assert summary["failures"] == {"dropped": 2, "collision": 1}


def test_no_success_at_all_is_a_result_too(tmp_path: Path) -> None:
    result = Evaluation(["no_grasp"] * 4, np.full(4, 16.0), np.zeros(4), {})
    assert result.summary()["time_to_success_median"] is None
    assert "no_grasp" in result.table()
    result.save_picture(tmp_path / "r.png")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("option", "says"), [("--record", "give a file that ends with .mp4 or .gif"), ("--picture", "ends with .png")]
)
def test_a_file_of_another_kind_is_refused_before_anything_runs(policy: Path, option: str, says: str) -> None:
    result = CliRunner().invoke(cli.main, ["evaluate", str(policy), "--episodes", "1000000", option, "film.avi"])
    assert result.exit_code == 2
    assert says in result.output


@pytest.mark.parametrize("option", ["--record", "--json", "--picture"])
def test_a_folder_to_write_to_is_refused_before_anything_runs(policy: Path, tmp_path: Path, option: str) -> None:
    result = CliRunner().invoke(cli.main, ["evaluate", str(policy), "--episodes", "1000000", option, str(tmp_path)])
    assert result.exit_code == 2
    assert "is a directory" in result.stderr


def test_a_policy_for_pushing_is_refused_by_name() -> None:
    with pytest.raises(HorseshoeError, match="push: is no policy for assembly, but for horseshoe/CoopPush-v0"):
        evaluate(OnnxPolicy("push"), 1, SEED)


def test_the_command_writes_json_and_a_picture(policy: Path, tmp_path: Path) -> None:
    json_file, picture = tmp_path / "out/r.json", tmp_path / "out/r.png"
    arguments = ["evaluate", str(policy), "--episodes", "2", "--seed", str(SEED), "--delay", "0:0.1"]
    result = CliRunner().invoke(cli.main, [*arguments, "--json", str(json_file), "--picture", str(picture)])
    assert result.exit_code == 0, result.output
    summary = json.loads(json_file.read_text())
    assert summary["episodes"] == 2
    assert {"success_rate", "ci95", "failures", "delay", "seed"} <= set(summary)
    assert summary["delay"] == [0.0, 0.1]
    assert picture.stat().st_size > 1000
    assert "success" in result.stdout


def test_the_command_answers_a_mistake_in_one_line_and_writes_nothing(tmp_path: Path) -> None:
    json_file = tmp_path / "r.json"
    result = CliRunner().invoke(cli.main, ["evaluate", "w_shape", "--json", str(json_file)])
    assert result.exit_code == 2
    assert "policy 'w_shape'" in result.stderr
    assert not json_file.exists()


def test_a_video_of_the_first_episodes_is_written(loaded: OnnxPolicy, tmp_path: Path) -> None:
    imageio = pytest.importorskip("imageio.v2")
    pytest.importorskip("imageio_ffmpeg")
    video = tmp_path / "v.mp4"
    evaluate(loaded, 1, SEED, video=video, video_episodes=1, threads=1)
    frames = list(iter(imageio.get_reader(video)))  # its length is infinite
    assert len(frames) >= 25
    assert frames[0].shape[2] == 3
    assert np.std(frames[0]) > 5.0
    assert [f.name for f in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "env: horseshoe/UShape-v0",
            "env: horseshoe/Nope-v0",
            "contract.yaml: env: 'horseshoe/Nope-v0' is unknown; cho",
        ),
        ("    dropout: 0.05", "    dropout: 5.0", "contract.yaml: noise.dropout: 5.0 is outside"),
        ("  - 6.283185307179586", "  - 60.0", "contract.yaml: action.joint_upper: goes beyond the xArm6's"),
    ],
)
def test_a_contract_that_no_environment_fits_is_refused_by_file_and_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(find("u_shape"), folder)
    file = folder / contracts.FILE
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(HorseshoeError, match=message):
        evaluate(OnnxPolicy(folder), 1, 5)
