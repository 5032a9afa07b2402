"""How often the 95 % interval of `estimate_mi` holds the truth, and how honest its error is.

Of each law, many samples are drawn, each for a method of `interval_coverage_ours.py`. If
its standard error is right and its bias small, 95 % of the intervals hold the mutual information,
and the estimates spread as much as the standard error says. Where the critic misses part of the
dependence (a spiral, at so few samples), the interval cannot know.

Repetition by repetition, so that a run that is cut off has all laws. Each estimate is kept as soon
as it is made, in the cache of `known_mi.py`, with its sample's hash and its code's: a run that was
killed goes on where it was, and what no longer holds is made anew.
"""

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import interval_coverage_ours
import matplotlib
import numpy as np
import torch
import tyro
from known_mi import Cache, Row, chosen, code_of, draw, fingerprint, markdown, number
from known_mi_environments import ONE_THREAD, Package
from known_mi_laws import every_law
from provenance import provenance, results_folder
from scipy.stats import binomtest, norm
from tqdm import tqdm

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LEVEL = 0.95
PROMISED = (0.90, 0.98)  # where the coverage should be, if the critic is adequate
FIRST_SEED = 1000  # known_mi.py reports on 0 to 9, and what is tuned there is tuned on 100 and more


class Case(NamedTuple):
    """A law, and the method that estimates its information."""

    name: str
    method: str
    law: str


CASES = (
    Case("Gaussian 1-D, critic alone", "critic alone", "1v1-normal-0.75"),
    Case("Gaussian 5-D, critic alone", "critic alone", "multinormal-sparse-5-5-2-2.0"),
    Case("Gaussian 5-D", "all parts", "multinormal-sparse-5-5-2-2.0"),
    Case("additive noise", "all parts", "1v1-additive-0.75"),
    Case("mixture", "all parts", "mixture-2-2-5"),
    Case("independence", "all parts", "independent-3-3"),
    Case("spiral 3-D", "all parts", "spiral-multinormal-sparse-3-3-2-2.0"),
)


@dataclass(frozen=True)
class Options:
    """How often the 95 % interval of estimate_mi holds the truth."""

    cases: tuple[str, ...] = ()
    """Cases (Gaussian*); default: all."""
    repetitions: int = 200
    """Samples of each law."""
    n: int = 2_000
    """Pairs in a sample."""
    workers: int = 2
    """Processes side by side, one thread each."""
    report: bool = False
    """Run nothing: table and figure from the estimates that there are."""
    cache: Path = field(default=Path(__file__).parent / ".cache")
    """Folder of all estimates ever made."""
    out: Path | None = None
    """Folder for results; by default benchmarks/results, with --smoke a temporary one."""
    smoke: bool = False
    """Run in seconds; the numbers mean nothing."""

    def check(self) -> None:
        """Raise a ValueError for what cannot be run."""
        for name, least in (("repetitions", 2), ("n", 50), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"--{name}: expected at least {least}, received {getattr(self, name)}"
                )


# --- Running ----------------------------------------------------------------------------------


def sample(law: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One sample of a law of `known_mi.py`."""
    return draw(every_law()[law], law, n, seed)


def estimate(method: str, law: str, n: int, seed: int) -> Row:
    """What a method says of one sample; runs in a process of the pool."""
    torch.set_num_threads(1)
    x, y = sample(law, n, seed)
    start, cpu = time.perf_counter(), time.process_time()
    try:
        result = (interval_coverage_ours.METHODS | interval_coverage_ours.SMOKE)[method](x, y, seed)
    except Exception as error:
        return {"estimate": None, "failed": f"{type(error).__name__}: {error}"}
    return {
        "estimate": result.value,
        "standard_error": result.standard_error,
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
    }


def run(cases: Sequence[Case], options: Options, cache: Cache) -> Iterator[Row]:
    """A row for each repetition of each case: the known ones first, the others as they come."""
    worker = Path(interval_coverage_ours.__file__)
    package = Package("mi-estimators", worker, tuple({case.method for case in cases}))
    code = {method: code_of(package, method) for method in package.methods}
    true = {name: every_law()[name].mutual_information() for name in {c.law for c in cases}}
    missing = []
    for seed in range(FIRST_SEED, FIRST_SEED + options.repetitions):
        for case in cases:
            x, y = sample(case.law, options.n, seed)
            row: Row = {"method": case.method, "law": case.law, "n": options.n, "seed": seed}
            row |= {"sample": fingerprint(x, y)}
            row |= {"code": code[case.method], "true": true[case.law]}
            known = cache.find(row)
            if known and known["estimate"] is not None:
                yield known | {"case": case.name}
            else:
                missing.append((case, row))
    if options.report or not missing:
        return
    os.environ |= ONE_THREAD  # of the processes that start now
    pool = ProcessPoolExecutor(options.workers, get_context("spawn"))
    try:
        jobs = {
            pool.submit(estimate, case.method, case.law, options.n, row["seed"]): (case, row)
            for case, row in missing
        }
        for job in as_completed(jobs):
            case, row = jobs[job]
            done = row | job.result() | {"workers": options.workers}
            if done["estimate"] is not None:  # what failed is tried again by the next run
                cache.add(done)
            yield done | {"case": case.name}
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


# --- Table ------------------------------------------------------------------------------------


def summary(rows: Iterable[Row], expected: int) -> Row:
    """How often the interval holds the truth, and how its standard error compares to the spread."""
    rows = list(rows)
    made = [r for r in rows if r["estimate"] is not None]
    entry: Row = {"made": len(made), "failed": len(rows) - len(made)}
    entry["missing"] = expected - len(rows)
    if len(made) < 2:
        return entry
    errors = np.array([r["estimate"] - r["true"] for r in made])
    claimed = np.array([r["standard_error"] for r in made])
    covered = int((np.abs(errors) <= norm.ppf((1 + LEVEL) / 2) * claimed).sum())
    interval = binomtest(covered, len(made)).proportion_ci(0.95, method="exact")
    return entry | {
        "true": made[0]["true"],
        "coverage": covered / len(made),
        "low": float(interval.low),
        "high": float(interval.high),
        "mean error": errors.mean().item(),
        "error of mean error": errors.std(ddof=1).item() / math.sqrt(len(made)),
        "sd": errors.std(ddof=1).item(),
        "mean standard error": claimed.mean().item(),
        "sd / mean standard error": errors.std(ddof=1).item() / max(claimed.mean().item(), 1e-12),
        "cpu_seconds": float(np.mean([r["cpu_seconds"] for r in made])),
    }


def table(entries: dict[str, Row]) -> str:
    """A line for each case."""
    header = ("law", "I", "made", "coverage", "mean error", "sd", "mean SE", "sd / SE", "CPU s")
    lines = []
    for case, e in entries.items():
        notes = [f"{e[k]} {k}" for k in ("failed", "missing") if e[k]]
        made = str(e["made"]) + (f" ({', '.join(notes)})" if notes else "")
        if "coverage" not in e:
            lines.append([case, "–", made, *["–"] * 6])
            continue
        coverage = f"{e['coverage']:.1%} ({e['low']:.1%} to {e['high']:.1%})"
        lines.append(
            [
                case,
                number(e["true"]),
                made,
                coverage,
                f"{e['mean error']:+.4f} ± {e['error of mean error']:.4f}",
                f"{e['sd']:.4f}",
                f"{e['mean standard error']:.4f}",
                f"{e['sd / mean standard error']:.2f}",
                f"{e['cpu_seconds']:.1f}",
            ]
        )
    return markdown(header, lines)


# --- Figure -----------------------------------------------------------------------------------


def draw_figure(entries: dict[str, Row], rows: Sequence[Row], title: str, path: Path) -> None:
    """Coverage of each case, and its errors in standard errors."""
    names = list(entries)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 1.8 + 0.45 * max(len(names), 5)), layout="constrained", sharey=True
    )
    left.axvspan(*PROMISED, color="0.9", label="90 to 98 %")
    left.axvline(LEVEL, color="0.4", lw=1)
    spread = np.random.default_rng(0)
    for height, name in enumerate(names):
        entry = entries[name]
        if "coverage" not in entry:
            continue
        left.plot([entry["low"], entry["high"]], [height] * 2, color="#0072B2")
        left.plot(entry["coverage"], height, "o", color="#0072B2")
        made = [r for r in rows if r["case"] == name and r["estimate"] is not None]
        scores = [
            np.clip((r["estimate"] - r["true"]) / max(r["standard_error"], 1e-12), -8, 8)
            for r in made
        ]
        jitter = height + spread.uniform(-0.25, 0.25, len(scores))
        right.plot(scores, jitter, ".", color="#0072B2", alpha=0.5, ms=4)
    for side in (-1, 1):
        right.axvline(side * norm.ppf((1 + LEVEL) / 2), color="0.4", lw=1)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set(xlabel="share of 95 % intervals that hold the truth, with its own 95 % interval")
    left.legend(loc="upper left")
    right.set(xlabel="(estimate - truth) / standard error; ±8 and beyond at the edge")
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
    plt.close(figure)


# --- Command line -----------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing; print the table, save JSON and figure."""
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(Options, prog="python benchmarks/interval_coverage.py", args=argv)
    if options.smoke:
        patterns = options.cases or ("Gaussian 1-D*", "independence")
        options = replace(options, cases=patterns, n=200, repetitions=2, workers=1)
        if options.cache == Options.cache:
            options = replace(options, cache=Path(tempfile.mkdtemp()))
    try:
        options.check()
        names = chosen("cases", options.cases, [case.name for case in CASES])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    cases = [case for case in CASES if case.name in names]
    if options.smoke:
        cases = [case._replace(method="smoke") for case in cases]
    out = results_folder(options.out, smoke=options.smoke)

    start, total = time.perf_counter(), len(cases) * options.repetitions
    rows = list(tqdm(run(cases, options, Cache(options.cache)), total=total, unit="estimate"))
    minutes = round((time.perf_counter() - start) / 60, 1)
    rows.sort(key=lambda row: (row["seed"], names.index(row["case"])))  # whatever came first
    entries = {
        case.name: summary([r for r in rows if r["case"] == case.name], options.repetitions)
        for case in cases
    }
    print(table(entries))
    for row in rows:
        if row.get("failed"):
            print(f"failed: {row['case']}, seed {row['seed']}: {row['failed']}")
    title = f"N = {options.n:,}, up to {options.repetitions} repetitions"
    draw_figure(entries, rows, title, out / "interval_coverage.png")
    settings = asdict(options)
    for folder in ("out", "cache"):  # where things lay is no part of them
        del settings[folder]
    content = provenance("interval_coverage.py", argv, settings, "cpu") | {"minutes": minutes}
    content |= {"summaries": entries, "rows": rows}
    text = json.dumps(content, indent=1, allow_nan=False)
    (out / "interval_coverage.json").write_text(text + "\n")
    print(f"\n{minutes} minutes; JSON and figure are in {out}")


if __name__ == "__main__":
    main()
