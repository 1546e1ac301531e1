"""That benchmarks run: never how fast. The cheap one in a second; those that start Spark are run by hand with --quick."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _run(*words):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_quick_benchmark_shows_and_keeps_every_series_with_its_baseline(tmp_path):
    kept, text = tmp_path / "b.json", tmp_path / "b.md"
    done = _run("api_overhead", "--quick", "--json", str(kept), "--markdown", str(text))
    assert done.returncode == 0, done.stderr
    series = json.loads(kept.read_text())["sections"][0]["series"]
    trips = [each for each in series if each["unit"] == "s"]
    assert [each["baseline"] for each in trips] == [None, *["bare aiohttp, round trip"] * 3]
    assert all(len(each["values"]) == 50 and min(each["values"]) > 0 for each in trips)
    for each in series:
        assert f"| {each['name']} |" in text.read_text()
        assert each["name"] in done.stdout


def test_a_name_that_is_no_benchmark_is_refused_with_the_names_that_are():
    done = _run("nonsense")
    assert done.returncode == 2
    assert "no such benchmark: nonsense" in done.stderr


def test_no_rounds_at_all_are_refused():
    assert "--rounds must be 1 or more" in _run("--rounds", "0").stderr
