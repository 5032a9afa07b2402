"""benchmarks/known_mi.py: it runs, goes on where it was, and drops no failure."""

import json
import subprocess
import sys
from pathlib import Path

import known_mi
import known_mi_environments
import matplotlib.image
import pytest
from known_mi import Job
from known_mi_environments import SMOKE, Package

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "known_mi.py"

# A package whose worker fails in every way that there is, and needs no library that takes long.
WORKER = """
import os, sys, time
sys.path.insert(0, {benchmarks!r})
from known_mi_worker import serve

def bug(x, y, seed):
    raise ValueError("no such\\nfile: /some/where/secret.txt")

def note(x, y, seed):
    print("peers talk")
    with open({calls!r}, "a") as file:
        file.write("x")
    return x.mean() * 0 + 0.25 + seed

serve({{
    "bad-bug": bug,
    "bad-nan": lambda x, y, seed: float("nan"),
    "bad-exit": lambda x, y, seed: os._exit(3),
    "bad-slow": lambda x, y, seed: time.sleep(60),
    "good": note,
}})
"""


@pytest.fixture
def package(tmp_path):
    worker, calls = tmp_path / "worker.py", tmp_path / "calls.txt"
    worker.write_text(WORKER.format(benchmarks=str(SCRIPT.parent), calls=str(calls)))
    return Package("bad", worker, ("bad-bug", "bad-nan", "bad-exit", "bad-slow", "good"))


def go(folder, packages, *arguments):
    """Run on one law of 50 samples; returns the JSON."""
    common = ("--cache", folder / "cache", "--out", folder / "out", "--n", "50")
    law = () if "--laws" in arguments else ("--laws", "1v1-normal-0.75")
    known_mi.main([str(a) for a in (*common, *law, *arguments)], packages)
    return json.loads((folder / "out" / "known_mi.json").read_text())


def test_smoke_runs_from_anywhere(tmp_path):
    command = [sys.executable, "-W", "error", str(SCRIPT), "--smoke", "--out", "results"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "| laws | true log-ratio | smoke |" in done.stdout
    content = json.loads((tmp_path / "results" / "known_mi.json").read_text())
    assert content["command"] == "python benchmarks/known_mi.py --smoke --out results"
    assert content["hardware"]["cpu"]
    assert content["options"]["n"] == 200
    assert {(r["method"], r["law"]) for r in content["rows"]} == {
        (method, law)
        for method in ("true log-ratio", "smoke")
        for law in ("1v1-normal-0.75", "student-identity-1-1-1")
    }
    for row in content["rows"]:
        assert abs(row["estimate"]) < 1
        if row["method"] == "smoke":
            assert row["standard_error"] >= 0
            assert row["seconds"] > 0
            assert row["cpu_seconds"] > 0
    image = matplotlib.image.imread(tmp_path / "results" / "known_mi.png")
    assert min(image.shape[:2]) > 400
    assert image[..., :3].std() > 0.05


def test_failures_are_recorded_and_the_rest_runs(tmp_path, package, capsys):
    content = go(tmp_path, [package], "--seeds", "7", "--timeout", "5")
    rows = {row["method"]: row for row in content["rows"]}
    assert {m: r.get("failed") for m, r in rows.items()} == {
        "true log-ratio": None,
        "bad-bug": "ValueError: no such file: secret.txt",
        "bad-nan": "estimate: nan",
        "bad-exit": "worker: exit status 3: no message",
        "bad-slow": "timeout: more than 5 seconds",
        "good": None,
    }
    assert rows["good"]["estimate"] == 7.25
    assert all(rows[m]["estimate"] is None for m in package.methods if m != "good")
    entry = content["summaries"]["all"]["bad-nan"]
    assert (entry["MAE"], entry["failed"], entry["missing"]) == (None, 1, 0)
    out = capsys.readouterr().out
    assert "– (1 failed)" in out
    assert "failed: bad-slow, 1 times (1v1-normal-0.75): timeout" in out

    # Nobody waits for a second seed of what was too slow for the first.
    content = go(tmp_path, [package], "--seeds", "8", "--timeout", "5", "--methods", "bad-slow")
    why = "timeout: more than 5 seconds on seed 7"
    assert [row["failed"] for row in content["rows"]] == [why]


def test_a_run_goes_on_where_it_was(tmp_path, package, capsys):
    calls, cache = tmp_path / "calls.txt", tmp_path / "cache" / "known_mi.jsonl"
    first = go(tmp_path, [package], "--methods", "good", "--seeds", "0", "1")
    assert calls.read_text() == "xx"
    again = go(tmp_path, [package], "--methods", "good", "--seeds", "0", "1")
    assert calls.read_text() == "xx"
    assert again["rows"] == first["rows"]

    with cache.open("a") as file:  # a kill in the middle of a line
        file.write('{"method": "goo')
    more = go(tmp_path, [package], "--methods", "good", "--seeds", "0", "1", "2")
    assert calls.read_text() == "xxx"
    assert more["rows"][:2] == first["rows"]
    assert go(tmp_path, [package], "--methods", "good", "--seeds", "2")["rows"] == more["rows"][2:]
    assert calls.read_text() == "xxx"

    # --report runs nothing, and says what is missing.
    capsys.readouterr()
    report = go(tmp_path, [package], "--methods", "good", "--seeds", "2", "3", "--report")
    assert report["rows"] == more["rows"][2:]
    assert "(1 missing)" in capsys.readouterr().out

    # Other code, other samples: other estimates.
    package.worker.write_text(package.worker.read_text().replace("0.25", "0.5"))
    changed = go(tmp_path, [package], "--methods", "good", "--seeds", "0")
    assert [row["estimate"] for row in changed["rows"]] == [0.5]
    go(tmp_path, [package], "--methods", "good", "--seeds", "0", "--n", "60")
    assert calls.read_text() == "xxxxx"


def test_failures_are_tried_again_on_demand(tmp_path, package):
    for arguments, lines in (((), 1), ((), 1), (("--retry-failed",), 2)):
        go(tmp_path, [package], "--methods", "bad-nan", "--seeds", "0", *arguments)
        assert len((tmp_path / "cache" / "known_mi.jsonl").read_text().splitlines()) == lines


def test_a_peer_without_an_environment_has_failed_for_now(tmp_path, package, monkeypatch):
    def fail(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr="ERROR: no network at /a/b/pip\n")

    monkeypatch.setattr(known_mi_environments.subprocess, "run", fail)
    peer = Package("peer", package.worker, ("good",), ("no-such-thing==1.0",))
    content = go(tmp_path, [peer], "--seeds", "0", "--methods", "peer")
    assert [row["failed"] for row in content["rows"]] == ["environment: ERROR: no network at pip"]
    assert content["environments"] == {"peer": ["failed: environment: ERROR: no network at pip"]}
    # It is not kept: the next run may have a network.
    assert not (tmp_path / "cache" / "known_mi.jsonl").exists()


def test_every_task_is_in_its_family():
    sizes = {family: len(laws) for family, laws in known_mi.families().items()}
    standard = {family: sizes[family] for family in known_mi.BEYOND_NORMAL}
    assert standard == {
        "1-d": 7,
        "student": 7,
        "asinh-student": 4,
        "swiss roll": 1,
        "multinormal": 9,
        "cdf": 3,
        "half-cube": 3,
        "spiral": 3,
        "spiral-cdf": 3,
    }


def test_laws_know_their_information_and_have_samples_of_their_own():
    names = set()
    for laws in known_mi.families().values():
        for name, law in laws.items():
            assert name not in names
            names.add(name)
            assert law.mutual_information() >= 0
            x, y = known_mi.draw(law, name, 50, seed=100)
            assert x.shape == (50, law.dim_x)
            assert y.shape == (50, law.dim_y)
    law = known_mi.families()["1-d"]["1v1-normal-0.75"]
    first, same = (known_mi.draw(law, "a", 50, seed=3) for _ in range(2))
    assert (first[0] == same[0]).all()
    assert (first[0] != known_mi.draw(law, "b", 50, seed=3)[0]).all()
    assert (first[0] != known_mi.draw(law, "a", 50, seed=4)[0]).all()


def test_summaries_of_made_up_rows():
    package = Package("p", SCRIPT, ("a", "b"))
    jobs = [
        Job(package, ("a", "b"), family, law, seed)
        for family, law in (("spiral", "s1"), ("spiral", "s2"), ("elsewhere", "e"))
        for seed in (0, 1)
    ]
    estimates = {
        "a": {"s1": (1.1, 0.7), "s2": (1.0, 1.0), "e": (1.0, 2.0)},
        "b": {"s1": (0.5, None), "s2": (1.5, -4000.0), "e": ()},
    }
    rows = [
        dict(method=m, family="elsewhere" if law == "e" else "spiral", law=law, seed=seed, true=1.0)
        | dict(estimate=value, cpu_seconds=2.0 + seed)
        for m, laws in estimates.items()
        for law, values in laws.items()
        for seed, value in enumerate(values)
    ]
    groups = known_mi.summaries(rows, jobs)
    assert list(groups) == ["spiral", "elsewhere", "Beyond Normal", "other families", "all"]
    assert groups["Beyond Normal"] == groups["spiral"]
    assert groups["spiral"]["a"] == {
        "MAE": pytest.approx(0.1),
        "median": pytest.approx(0.05),
        "largest": pytest.approx(0.3),
        "cpu_seconds": 2.5,
        "estimates": 4,
        "failed": 0,
        "missing": 0,
    }
    assert groups["all"]["a"]["MAE"] == pytest.approx(1.4 / 6)
    assert groups["all"]["b"]["failed"] == 1
    assert groups["all"]["b"]["missing"] == 2
    assert groups["elsewhere"]["b"]["MAE"] is None
    text = known_mi.tables(groups)
    assert "| spiral | 0.100 | 1.3e+03 (1 failed) |" in text
    assert "| elsewhere | 0.500 | – (2 missing) |" in text
    assert "| a | 0.233 | 0.050 | 1.000 | 2.500 | 6 | 0 | 0 |" in text
    # What has not run everywhere is not compared; nor is what never comes close.
    assert "Within 0.05 nats on average: none. Not so: a. Incomplete: b." in text


def test_methods_are_compared_on_what_all_of_them_estimated():
    row = {"true": 1.0, "seed": 0, "cpu_seconds": 1.0}
    rows = [
        row | {"method": method, "law": law, "estimate": estimate}
        for method, law, estimate in (
            ("a", "easy", 1.1),
            ("a", "hard", 9.0),
            ("b", "easy", 1.2),
            ("b", "hard", None),
            ("never", "easy", None),
        )
    ]
    shared = known_mi.shared_summary(rows)
    assert {m: (e["MAE"], e["estimates"]) for m, e in shared.items()} == {
        "a": (pytest.approx(0.1), 1),
        "b": (pytest.approx(0.2), 1),
    }
    assert known_mi.shared_summary([]) == {}


def test_time_to_an_error_is_told_beside_the_least():
    entries = {
        name: {"MAE": error, "cpu_seconds": seconds, "missing": missing, "failed": failed}
        for name, error, seconds, missing, failed in (
            ("slow", 0.01, 30.0, 0, 0),
            ("quick", 0.05, 6.0, 0, 0),
            ("far", 0.06, 1.0, 0, 0),
            ("partly", 0.01, 1.0, 2, 0),
            ("fails", 0.01, 1.0, 0, 1),
            ("true", 0.01, None, 0, 0),
        )
    }
    assert known_mi.time_to(entries) == (
        "Within 0.05 nats on average: quick in 6.0 CPU seconds (1.0 times the least), slow in 30.0 "
        "CPU seconds (5.0 times the least). Not so: far. Incomplete: partly, fails."
    )


def test_code_counts_and_prose_does_not(tmp_path):
    package = Package("ours", tmp_path / "worker.py", ("a", "b"))

    def codes(text):
        package.worker.write_text(text)
        return [known_mi.code_of(package, m) for m in package.methods]

    before = codes('"""Doc."""\nM = {"a": f, "b": g}\ndef h():\n    """Doc."""\n    return 1\n')
    assert before[0] != before[1]
    prose = codes('M = {"a": f, "b": g}  # why\ndef h():\n    """Other."""\n    return 1\n')
    assert prose == before
    another = codes('M = {"a": f, "b": other, "c": h}\ndef h():\n    return 1\n')
    assert another[0] == before[0]
    assert another[1] != before[1]
    assert codes('M = {"a": f, "b": g}\ndef h():\n    return 2\n')[0] != before[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "mime"), "--methods: expected some of true log-ratio, smoke"),
        (("--families", "spirals"), "--families: expected some of 1-d, student"),
        (("--laws", "1v1-normal"), "--laws: expected some of 1v1-normal-0.75"),
        (("--families", "spiral", "--laws", "1v1*"), "--laws: expected some of spiral-multi"),
        (("--n", "10"), "--n: expected at least 50, received 10"),
        (("--seeds", "-1"), "--seeds: expected at least 0, received -1"),
        (("--timeout", "0"), "--timeout: expected more than 0, received 0"),
        (("--sedes", "3"), "--sedes"),
    ],
)
def test_bad_options_are_refused(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        known_mi.main([*arguments, "--out", str(tmp_path / "results")], [SMOKE])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "results").exists()
