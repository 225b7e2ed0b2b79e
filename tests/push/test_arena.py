"""Episodes with differential-drive robots, without ROS."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest

import horseshoe.sim  # noqa: F401  registers the environment
from horseshoe.errors import HorseshoeError
from horseshoe.sim.push.arena import PushArena, load_track, save_track
from horseshoe.sim.push.film import save_film


def test_episodes_meet_the_scenes_that_the_environment_keeps_for_evaluation() -> None:
    arena = PushArena(robots=3, seed=2, decisions=2)
    env = gymnasium.make_vec("horseshoe/CoopPush-v0", num_envs=2, robots=3, held_out=True)
    env.reset(seed=2)
    for k in range(2):
        arena.next_episode()
        expected = env.unwrapped.scenes[k]
        assert arena.scene.name == expected.name
        np.testing.assert_array_equal(arena.motion.position, expected.robots.astype(np.float32))


def test_a_robot_drives_where_its_twist_says_and_an_episode_ends_in_time() -> None:
    arena = PushArena(robots=1, decisions=20)
    arena.next_episode()
    before = arena.motion
    away = before.position[0] - arena.particles.mean(0)
    arena._drives.heading[:] = np.arctan2(away[1], away[0])  # so that nothing is in the way
    for k in range(20):
        assert not arena.over
        arena.command(0, 0.1, 0.0)
        arena.step()
        assert arena.decisions == k + 1
    moved = arena.motion.position[0] - before.position[0]
    assert 0.02 < np.linalg.norm(moved) <= 0.1
    np.testing.assert_allclose(away[0] * moved[1] - away[1] * moved[0], 0.0, atol=1e-3)
    assert arena.over
    assert not arena.success


def test_a_shove_half_way_moves_the_object_once() -> None:
    arena = PushArena(robots=1, decisions=40, shove=0.6)
    for _ in range(2):
        arena.next_episode()
        while not arena.over:
            arena.step()
        way = np.linalg.norm(np.diff(arena.track().particles.mean(1), axis=0), axis=1)
        assert way[: arena.shoved_at].max() < 1e-3
        assert 0.02 < way[arena.shoved_at :].sum() < 0.15
        assert way[-5:].max() < 1e-3


def test_an_episode_is_read_back_as_it_was_written_and_makes_a_film(tmp_path: Path) -> None:
    arena = PushArena(robots=2, decisions=3, shove=0.7)
    arena.next_episode()
    for _ in range(3):
        arena.step()
    save_track(tmp_path / "episode.npz", arena.track())
    track = load_track(tmp_path / "episode.npz")
    assert track.scene == arena.scene.name
    assert track.robots.shape == (4, 2, 3)
    np.testing.assert_allclose(track.particles[-1], arena.particles, atol=1e-6)
    save_film(tmp_path / "film.mp4", [tmp_path / "episode.npz"])
    assert (tmp_path / "film.mp4").stat().st_size > 5_000
    for broken in (b"no episode", b"", (tmp_path / "episode.npz").read_bytes()[:-40]):
        (tmp_path / "broken.npz").write_bytes(broken)
        with pytest.raises(HorseshoeError, match=r"broken\.npz"):
            load_track(tmp_path / "broken.npz")
    with pytest.raises(HorseshoeError, match="no episode was recorded"):
        save_film(tmp_path / "none.mp4", [])
