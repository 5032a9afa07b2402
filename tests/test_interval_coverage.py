"""benchmarks/interval_coverage.py: it runs, goes on where it was, and counts right."""

import json
import subprocess
import sys
from pathlib import Path

import interval_coverage
import known_mi
import matplotlib.image
import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "interval_coverage.py"
CASES = {"Gaussian 1-D, critic alone", "independence"}


def run(*arguments, cwd):
    command = [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)


def rows(errors, standard_errors, true=1.0):
    return [
        {"case": "c", "true": true, "estimate": true + e, "standard_error": s, "cpu_seconds": 2.0}
        for e, s in zip(errors, standard_errors, strict=True)
    ]


def test_smoke_runs_from_anywhere_and_goes_on_where_it_was(tmp_path):
    common = ("--smoke", "--out", "results", "--cache", "cache")
    done = run(*common, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| law | I | made | coverage | mean error |" in done.stdout
    content = json.loads((tmp_path / "results" / "interval_coverage.json").read_text())
    assert content["command"].startswith("python benchmarks/interval_coverage.py --smoke")
    assert content["hardware"]["cpu"]
    assert content["options"]["n"] == 200
    assert {(r["case"], r["seed"]) for r in content["rows"]} == {
        (case, seed) for case in CASES for seed in (1000, 1001)
    }
    for row in content["rows"]:
        assert row["standard_error"] >= 0
        assert row["cpu_seconds"] > 0
    image = matplotlib.image.imread(tmp_path / "results" / "interval_coverage.png")
    assert min(image.shape[:2]) > 400
    assert image[..., :3].std() > 0.05

    lines = (tmp_path / "cache" / "known_mi.jsonl").read_text().splitlines()
    assert len(lines) == 4
    done = run(*common, "--report", cwd=tmp_path)
    again = json.loads((tmp_path / "results" / "interval_coverage.json").read_text())
    assert again["rows"] == content["rows"]
    # One is lost: the report says so.
    (tmp_path / "cache" / "known_mi.jsonl").write_text("\n".join(lines[1:]) + "\n")
    done = run(*common, "--report", cwd=tmp_path)
    assert "1 (1 missing)" in done.stdout
    # The next run makes it anew, and no other.
    assert run(*common, cwd=tmp_path).returncode == 0
    more = json.loads((tmp_path / "results" / "interval_coverage.json").read_text())["rows"]
    assert [row["estimate"] for row in more] == [row["estimate"] for row in content["rows"]]
    assert len((tmp_path / "cache" / "known_mi.jsonl").read_text().splitlines()) == 4


def test_coverage_of_made_up_rows():
    errors = np.array([0.0, 1.9, -1.9, 2.0, -5.0, 0.1, 0.2, -0.1, -0.2, 0.0])
    entry = interval_coverage.summary(rows(errors, np.ones(10)), expected=12)
    assert entry["coverage"] == 0.8  # 2 and 5 standard errors are too many
    assert entry["low"] < 0.45
    assert 0.97 < entry["high"] < 0.98  # Clopper and Pearson 1934
    assert entry["mean error"] == pytest.approx(-0.3)
    assert entry["sd / mean standard error"] == pytest.approx(errors.std(ddof=1))
    assert (entry["made"], entry["failed"], entry["missing"]) == (10, 0, 2)
    line = interval_coverage.table({"c": entry}).splitlines()[-1]
    assert line.startswith("| c | 1.000 | 10 (2 missing) | 80.0% (44.4% to 97.5%) | -0.3000 ± ")


def test_honest_intervals_cover_as_often_as_they_say():
    errors = np.random.default_rng(0).normal(size=20_000)
    entry = interval_coverage.summary(rows(errors, np.ones(20_000)), expected=20_000)
    assert entry["coverage"] == pytest.approx(0.95, abs=0.005)
    assert entry["low"] < 0.95 < entry["high"]


def test_what_failed_is_counted_and_shown():
    failed = {"case": "c", "estimate": None, "failed": "ValueError: no", "true": 1.0}
    entry = interval_coverage.summary([failed, *rows([0.1, 0.2], [1, 1])], expected=3)
    assert (entry["made"], entry["failed"]) == (2, 1)
    alone = interval_coverage.summary([failed], expected=3)
    assert "| c | – | 0 (1 failed, 2 missing) | – |" in interval_coverage.table({"c": alone})


def test_an_estimate_that_fails_says_why(monkeypatch):
    def bad(x, y, seed):
        raise FloatingPointError(f"overflow in {x.shape}")

    monkeypatch.setitem(interval_coverage.interval_coverage_ours.METHODS, "bad", bad)
    row = interval_coverage.estimate("bad", "1v1-normal-0.75", 60, 3)
    assert row == {"estimate": None, "failed": "FloatingPointError: overflow in (60, 1)"}


def test_cases_are_methods_and_laws_that_there_are():
    laws = {name for group in known_mi.families().values() for name in group}
    for case in interval_coverage.CASES:
        assert case.law in laws
        assert case.method in interval_coverage.interval_coverage_ours.METHODS


def test_a_cut_off_run_has_all_laws(tmp_path, monkeypatch):
    asked = []

    class Empty(known_mi.Cache):
        def find(self, row):
            asked.append((row["seed"], row["law"]))

    options = interval_coverage.Options(repetitions=2, n=50, report=True)
    cases = interval_coverage.CASES[:3]
    assert list(interval_coverage.run(cases, options, Empty(tmp_path))) == []
    assert asked == [(seed, case.law) for seed in (1000, 1001) for case in cases]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--n", "10"), "--n: expected at least 50, received 10"),
        (("--repetitions", "1"), "--repetitions: expected at least 2, received 1"),
        (("--workers", "0"), "--workers: expected at least 1, received 0"),
        (("--cases", "cauchy"), "--cases: expected some of Gaussian 1-D, critic alone"),
        (("--sedes", "3"), "--sedes"),
    ],
)
def test_bad_options_are_refused(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        interval_coverage.main([*arguments, "--out", str(tmp_path / "results")])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "results").exists()
