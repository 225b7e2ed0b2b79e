"""`horseshoe bench` finds the benchmarks of the source tree from anywhere."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from horseshoe import bench, cli


@pytest.mark.parametrize("name", sorted(bench.BENCHMARKS))
def test_every_benchmark_shows_an_example(name: str) -> None:
    result = CliRunner().invoke(cli.main, ["bench", name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"horseshoe bench {name}" in result.output


def test_an_unknown_benchmark_is_refused() -> None:
    result = CliRunner().invoke(cli.main, ["bench", "sym"])
    assert result.exit_code == 2
    assert "sym" in result.stderr


def test_the_source_tree_is_found_from_another_folder(tmp_path: Path) -> None:
    code = "from horseshoe.bench import source; print(source('sim').__file__)"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("benchmarks/sim.py")
