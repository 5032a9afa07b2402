"""Mutual information that is known: this library and its peers, side by side on the same arrays.

The laws are the 40 tasks of "Beyond Normal" (Czyż et al. 2023), by sub-family, and families outside
that set (`known_mi_laws.py`). Every method sees the same arrays, on one thread, in a process of its
own: ours here (`known_mi_ours.py`, where a variant is a line), benchmark-mi and torch-mist each in
an environment that is made when it is first needed. Beside them stands the sample mean of the true
log-ratio, which no estimator knows: what that misses is chance.

Each estimate is kept as soon as it is made, with its samples' hash and its method's code or
versions, so that a run that was killed goes on where it was, and what no longer holds is made anew.
A method that fails on an array is reported as such; nothing is dropped.
"""

import ast
import fnmatch
import hashlib
import json
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import tyro
from known_mi_environments import (
    PACKAGES,
    SMOKE,
    EnvironmentFailed,
    Package,
    failure,
    interpreter,
    run_worker,
    versions,
)
from known_mi_laws import BEYOND_NORMAL, every_law, families
from provenance import provenance, results_folder
from tqdm import tqdm

import mi_estimators
from mi_estimators.distributions import JointDistribution

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Row = dict[str, Any]

TRUE = "true log-ratio"
# Modules that no estimate depends on other than through the samples, which have their own hash.
NOT_ESTIMATING = (
    "__init__",
    "bijections",
    "combination",
    "conditional",
    "distributions",
    "preflight",
    "sklearn",
    "testing",
)


@dataclass(frozen=True)
class Options:
    """This library and its peers, side by side on the same arrays with known MI."""

    methods: tuple[str, ...] = ()
    """Methods (mist-smile, ours*) or packages (benchmark-mi); default: all."""
    families: tuple[str, ...] = ()
    """Families of laws (spiral*); default: all."""
    laws: tuple[str, ...] = ()
    """Laws (*-25-25-*); default: all of those families."""
    n: int = 10_000
    """Samples of each law."""
    seeds: tuple[int, ...] = tuple(range(10))
    """Of the samples, and of the methods. Reported: 0 to 9; tune on 100 and more."""
    workers: int = 2
    """Processes side by side, one thread each."""
    timeout: float = 600
    """Seconds after which an estimate has failed; that law's other seeds are then not tried."""
    retry_failed: bool = False
    """Try again what failed before."""
    report: bool = False
    """Run nothing: tables and figure from the estimates that there are."""
    cache: Path = field(default=Path(__file__).parent / ".cache")
    """Folder of peers' environments and of all estimates ever made."""
    out: Path | None = None
    """Folder for results; by default benchmarks/results, with --smoke a temporary one."""
    smoke: bool = False
    """Run in seconds, without peers; the numbers mean nothing."""

    def check(self) -> None:
        """Raise a ValueError for what cannot be run."""
        for name, value, least in (
            ("n", self.n, 50),
            ("seeds", min(self.seeds, default=-1), 0),
            ("workers", self.workers, 1),
        ):
            if value < least:
                raise ValueError(f"--{name}: expected at least {least}, received {value}")
        if not self.timeout > 0:
            raise ValueError(f"--timeout: expected more than 0, received {self.timeout}")


# --- What to run ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """Methods of one package, to be run on one sample of one law."""

    package: Package | None
    """None: the true log-ratio, which needs the law."""
    methods: tuple[str, ...]
    family: str
    law: str
    seed: int


def chosen(kind: str, patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """The names that a pattern fits, in their own order; all of them if there is no pattern.

    Raises:
        ValueError: If a pattern fits none.
    """
    names = list(names)
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"--{kind}: expected some of {', '.join(names)}, received {pattern!r}")
    return [n for n in names if not patterns or any(fnmatch.fnmatch(n, p) for p in patterns)]


def plan(options: Options, packages: Sequence[Package]) -> list[Job]:
    """Every sample with every package; seed by seed, so that a cut-off run has all laws."""
    everything = families()
    of_family = chosen("families", options.families, everything)
    laws = [(family, law) for family in of_family for law in everything[family]]
    wanted = set(chosen("laws", options.laws, [law for _, law in laws]))
    names = [TRUE] + [n for p in packages for n in (p.name, *p.methods)]
    methods = set(chosen("methods", options.methods, dict.fromkeys(names)))
    groups: list[tuple[Package | None, tuple[str, ...]]] = [
        (None, (TRUE,) if TRUE in methods else ())
    ]
    groups += [
        (p, p.methods if p.name in methods else tuple(m for m in p.methods if m in methods))
        for p in packages
    ]
    return [
        Job(package, own, family, law, seed)
        for seed in options.seeds
        for package, own in groups
        if own
        for family, law in laws
        if law in wanted
    ]


def draw(law: JointDistribution, name: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The sample of a law that all methods see; float64, shapes [n, d_x] and [n, d_y].

    Seeded by name and seed together: laws that are maps of one another get samples of their own,
    and a method that seeds its own generator by `seed` does not repeat the sample's numbers.
    """
    digest = hashlib.sha256(f"{name} {seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:6]))
    x, y = law.sample(n, generator=generator)
    return x.numpy(), y.numpy()


def fingerprint(x: np.ndarray, y: np.ndarray) -> str:
    """A hash that tells samples apart."""
    return hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()[:12]


# --- What was run before ----------------------------------------------------------------------


def code_of(package: Package, method: str) -> str:
    """A hash of what an estimate depends on besides its samples.

    Of a peer: its requirements and worker script. Of ours: all code that estimates, and the
    method's line in the table. Comments and docstrings do not count.
    """
    parts = list(package.requirements)
    tree = _without_docstrings(ast.parse(package.worker.read_text()))
    if not package.requirements:
        root = Path(mi_estimators.__file__).parent
        for path in sorted(root.rglob("*.py")):
            if path.relative_to(root).with_suffix("").parts[0] not in NOT_ESTIMATING:
                parts.append(ast.dump(_without_docstrings(ast.parse(path.read_text()))))
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                lines = zip(node.keys, node.values, strict=True)
                own = [v for k, v in lines if isinstance(k, ast.Constant) and k.value == method]
                node.keys, node.values = [None] * len(own), own
    parts.append(ast.dump(tree))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [
                s
                for s in node.body
                if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
            ]
    return tree


class Cache:
    """All estimates ever made: a file of JSON lines, to which several runs may append."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
        self.path, self.lock = folder / "known_mi.jsonl", threading.Lock()
        text = self.path.read_text() if self.path.exists() else ""
        if text and not text.endswith("\n"):  # killed in the middle of a line
            with self.path.open("a") as file:
                file.write("\n")
        self.rows: dict[tuple[Any, ...], Row] = {}
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.rows[self._key(row)] = row

    @staticmethod
    def _key(row: Row) -> tuple[Any, ...]:
        return tuple(row[k] for k in ("method", "law", "n", "seed", "sample", "code"))

    def find(self, row: Row) -> Row | None:
        """What is known of a row's method on a row's sample."""
        return self.rows.get(self._key(row))

    def add(self, row: Row) -> None:
        """Keep a row, at once."""
        with self.lock:
            self.rows[self._key(row)] = row
            with self.path.open("a") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")


# --- Running ----------------------------------------------------------------------------------


class Runner:
    """Runs jobs: what the cache has is taken from there, and all else goes into it."""

    def __init__(self, options: Options, cache: Cache, packages: Sequence[Package]) -> None:
        self.options, self.cache = options, cache
        self.laws = every_law()
        # Once, at the start: a file that is edited during a run has no part in the names.
        self.code = {m: code_of(p, m) for p in packages for m in p.methods}
        self.stopped = threading.Event()

    def pythons(self, packages: Iterable[Package]) -> dict[str, str | EnvironmentFailed]:
        """The interpreter of each package, or why there is none."""
        found: dict[str, str | EnvironmentFailed] = {}
        for package in packages:
            try:
                found[package.name] = interpreter(package, self.options.cache)
            except EnvironmentFailed as error:
                found[package.name] = error
        return found

    def run_all(self, jobs: Sequence[Job]) -> Iterator[list[Row]]:
        """The rows of each job, as they come."""
        needed = {j.package.name: j.package for j in jobs if j.package}
        self.python = {} if self.options.report else self.pythons(needed.values())
        self.true = {name: self.laws[name].mutual_information() for name in {j.law for j in jobs}}
        pool = ThreadPoolExecutor(self.options.workers)
        try:
            for done in as_completed([pool.submit(self.run, job) for job in jobs]):
                yield done.result()
        except KeyboardInterrupt:
            print("\nstopping, when the estimates in progress are there", file=sys.stderr)
            raise
        finally:
            self.stopped.set()
            pool.shutdown(cancel_futures=True)

    def run(self, job: Job) -> list[Row]:
        """The rows of one job: one for each method."""
        law, n = self.laws[job.law], self.options.n
        x, y = draw(law, job.law, n, job.seed)
        row: Row = {"family": job.family, "law": job.law, "n": n, "seed": job.seed}
        row |= {"true": self.true[job.law]}
        if job.package is None:
            log_ratio = law.log_ratio(torch.from_numpy(x), torch.from_numpy(y))
            return [
                {"method": TRUE, **row, "estimate": log_ratio.mean().item(), "cpu_seconds": None}
            ]
        row["sample"] = fingerprint(x, y)
        rows, pending = [], []
        for method in job.methods:
            known = self.cache.find({**row, "method": method, "code": self.code[method]})
            if known and not (self.options.retry_failed and known.get("failed")):
                rows.append(known | row)  # a law may since have moved to another family
            else:
                pending.append(method)
        if pending and not self.options.report:
            rows += self.estimate(job.package, pending, row, x, y)
        return rows

    def estimate(
        self, package: Package, methods: Sequence[str], row: Row, x: np.ndarray, y: np.ndarray
    ) -> Iterator[Row]:
        """Rows that are not in the cache."""
        python = self.python[package.name]
        if isinstance(python, EnvironmentFailed):  # not cached: the next run may have a network
            for method in methods:
                yield {**row, **failure(method, str(python))}
            return
        slow = {m: self.too_slow(m, row) for m in methods}
        for method, why in slow.items():
            if why:
                yield {**row, **failure(method, why)}
        methods = [m for m, why in slow.items() if not why]
        answers = run_worker(
            package, python, methods, x, y, seed=row["seed"], timeout=self.options.timeout
        )
        for answer in answers:
            done = {**row, **answer, "code": self.code[answer["method"]]}
            done["workers"] = self.options.workers
            self.cache.add(done)
            yield done
            if self.stopped.is_set():
                return

    def too_slow(self, method: str, row: Row) -> str | None:
        """Why a method need not be tried: it was given as much time on another seed's sample."""
        wanted = {"method": method, "code": self.code[method], "law": row["law"], "n": row["n"]}
        for other in list(self.cache.rows.values()):
            if wanted.items() <= other.items() and other["seed"] != row["seed"]:
                late = re.fullmatch(r"timeout: more than (.+) seconds", other.get("failed", ""))
                if late and float(late[1]) >= self.options.timeout:
                    return f"{late[0]} on seed {other['seed']}"
        return None


# --- Tables -----------------------------------------------------------------------------------


def summary(rows: Iterable[Row], expected: int) -> Row:
    """How far one method is off, in nats, over the estimates that it made."""
    rows = list(rows)
    errors = np.array([abs(r["estimate"] - r["true"]) for r in rows if r["estimate"] is not None])
    seconds = [r["cpu_seconds"] for r in rows if r.get("cpu_seconds")]  # none of a timeout
    made = len(errors) > 0
    return {
        "MAE": errors.mean().item() if made else None,
        "median": np.median(errors).item() if made else None,
        "largest": errors.max().item() if made else None,
        "cpu_seconds": statistics.mean(seconds) if seconds else None,
        "estimates": len(errors),
        "failed": len(rows) - len(errors),
        "missing": expected - len(rows),
    }


def summaries(rows: Sequence[Row], jobs: Sequence[Job]) -> dict[str, dict[str, Row]]:
    """By group of laws (each family, Beyond Normal, the others, all), by method."""
    cells = [(m, j.family) for j in jobs for m in j.methods]
    methods, names = list(dict.fromkeys(m for m, _ in cells)), {f for _, f in cells}
    groups = {f: {f} for f in dict.fromkeys(f for _, f in cells)}
    standard = names & BEYOND_NORMAL.keys()
    if standard and names - standard:
        groups |= {"Beyond Normal": standard, "other families": names - standard}
    groups["all"] = names
    return {
        group: {
            method: summary(
                [r for r in rows if r["method"] == method and r["family"] in members],
                sum(m == method and f in members for m, f in cells),
            )
            for method in methods
        }
        for group, members in groups.items()
    }


def shared_summary(rows: Sequence[Row]) -> dict[str, Row]:
    """By method, over the samples that all methods have an estimate of."""
    by_method: dict[str, dict[tuple[str, int], Row]] = {}
    for row in rows:
        if row["estimate"] is not None:
            by_method.setdefault(row["method"], {})[row["law"], row["seed"]] = row
    samples = set.intersection(*(set(made) for made in by_method.values())) if by_method else set()
    return {
        method: summary([made[sample] for sample in samples], len(samples))
        for method, made in by_method.items()
    }


def number(value: float | None) -> str:
    """Three decimals of small numbers, fewer of large ones."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:.1e}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table, numbers to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def cell(entry: Row, key: str) -> str:
    """A number, and how many estimates it is not made of."""
    notes = [f"{entry[k]} {k}" for k in ("failed", "missing") if entry[k]]
    return number(entry[key]) + (f" ({', '.join(notes)})" if notes and key != "cpu_seconds" else "")


def tables(groups: dict[str, dict[str, Row]]) -> str:
    """Families against methods, for error and time; then methods over all laws."""
    methods = list(groups["all"])
    parts = []
    for title, key in (
        ("Mean absolute error [nats]", "MAE"),
        ("Largest error [nats]", "largest"),
        ("CPU seconds an estimate, one thread", "cpu_seconds"),
    ):
        lines = [[g, *(cell(own[m], key) for m in methods)] for g, own in groups.items()]
        parts.append(f"{title}\n\n{markdown(['laws', *methods], lines)}")
    header = ["method", "MAE", "median", "largest", "cpu_seconds", "estimates", "failed", "missing"]
    for group in ("Beyond Normal", "other families", "all"):
        if group in groups:
            lines = [
                [m, *(number(e[k]) for k in header[1:5]), *(str(e[k]) for k in header[5:])]
                for m, e in groups[group].items()
            ]
            parts.append(f"Errors [nats], {group}\n\n{markdown(header, lines)}")
            parts.append(time_to(groups[group]))
    return "\n\n".join(parts)


def time_to(entries: dict[str, Row], close: float = 0.05) -> str:
    """Which methods come close on average, the cheapest first, and how much work each takes."""
    complete = {m: e for m, e in entries.items() if not e["missing"] and not e["failed"]}
    made = {m: e for m, e in complete.items() if e["cpu_seconds"]}  # but for the true log-ratio
    reached = sorted(
        (m for m, e in made.items() if e["MAE"] is not None and e["MAE"] <= close),
        key=lambda m: made[m]["cpu_seconds"],
    )
    times = [
        f"{m} in {made[m]['cpu_seconds']:.1f} CPU seconds "
        f"({made[m]['cpu_seconds'] / made[reached[0]]['cpu_seconds']:.1f} times the least)"
        for m in reached
    ]
    never = [m for m in made if m not in reached]
    return (
        f"Within {close:g} nats on average: {', '.join(times) or 'none'}. "
        f"Not so: {', '.join(never) or 'none'}. "
        f"Incomplete: {', '.join(m for m in entries if m not in complete) or 'none'}."
    )


def failures(rows: Iterable[Row]) -> str:
    """What failed, and how often."""
    counts: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.get("failed"):
            counts.setdefault((row["method"], row["failed"]), []).append(row)
    return "\n".join(
        f"failed: {method}, {len(own)} times ({', '.join(dict.fromkeys(r['law'] for r in own))}): "
        f"{why}"
        for (method, why), own in counts.items()
    )


# --- Figure -----------------------------------------------------------------------------------

# Ours in blue; each peer has a colour, and its methods have markers. Palette: Okabe and Ito.
COLOURS = {TRUE: "0.6", "ours": "#0072B2", "bmi": "#D55E00", "mist": "#009E73"}
MARKERS = "osD^vPX*<>hp"
LOWEST, HIGHEST = 1e-3, 10.0  # errors in nats; beyond lies chance, or nonsense


def draw_figure(
    groups: dict[str, dict[str, Row]], shared: dict[str, Row], title: str, path: Path
) -> None:
    """Error by family and method; error against seconds, on the laws that are `shared`."""
    methods = list(groups["all"])
    names = [g for g in groups if g not in ("Beyond Normal", "other families", "all")]
    seen: dict[str, int] = {}
    style = {}
    for method in methods:
        package = method if method == TRUE else method.split("-")[0]
        marker = "|" if method == TRUE else MARKERS[seen.get(package, 0) % len(MARKERS)]
        seen[package] = seen.get(package, 0) + 1
        style[method] = dict(color=COLOURS.get(package, "0.2"), marker=marker)

    figure, (left, right) = plt.subplots(
        1,
        2,
        figsize=(14, 2.5 + 0.42 * max(len(names), 8)),
        layout="constrained",
        width_ratios=[3, 2],
    )
    for index, method in enumerate(methods):
        # Side by side within a family, or the markers hide each other.
        shift = 0.7 * ((index + 0.5) / len(methods) - 0.5)
        points = [(groups[g][method]["MAE"], k + shift) for k, g in enumerate(names)]
        x, y = np.array([(e, k) for e, k in points if e is not None] or np.empty((0, 2))).T
        size = 11 if method == TRUE else 7 if method.startswith("ours") else 5
        left.plot(
            x.clip(LOWEST, HIGHEST), y, ls="", ms=size, label=method, clip_on=False, **style[method]
        )
        entry = shared.get(method, {})
        if entry.get("cpu_seconds") and entry["estimates"]:
            x, y = entry["cpu_seconds"], np.clip(entry["MAE"], LOWEST, HIGHEST)
            right.plot(x, y, ls="", ms=9, **style[method])
    for boundary in range(1, len(names)):
        left.axhline(boundary - 0.5, color="0.9", lw=0.8)
    left.set_yticks(range(len(names)), names)
    left.set(xscale="log", xlim=(LOWEST, HIGHEST), ylim=(len(names) - 0.5, -0.5))
    left.set_xlabel(f"mean absolute error [nats]; at the right edge: {HIGHEST:g} or more")
    right.set(xscale="log", yscale="log", ylim=(LOWEST, HIGHEST))
    of_how_many = max((entry["estimates"] for entry in shared.values()), default=0)
    right.set(
        xlabel="CPU seconds an estimate, one thread",
        ylabel=f"mean absolute error [nats], {of_how_many} estimates that all methods made",
    )
    right.margins(x=0.2)
    for numbers in (left.xaxis, right.xaxis, right.yaxis):
        numbers.set_major_formatter("{x:g}")
    for axis in (left, right):
        axis.grid(axis="both" if axis is right else "x", which="major", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(len(methods), 6), frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
    plt.close(figure)


# --- Command line -----------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None, packages: Sequence[Package] = PACKAGES) -> None:
    """Run what is missing; print the tables, save JSON and figure."""
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(Options, prog="python benchmarks/known_mi.py", args=argv)
    if options.smoke:
        packages = [SMOKE]
        laws = options.laws or ("1v1-normal-0.75", "student-identity-1-1-1")
        options = replace(options, n=200, seeds=(0,), laws=laws)
        if options.cache == Options.cache:
            options = replace(options, cache=Path(tempfile.mkdtemp()))
    try:
        options.check()
        jobs = plan(options, packages)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    out = results_folder(options.out, smoke=options.smoke)
    torch.set_num_threads(1)

    start, rows = time.perf_counter(), []
    runner = Runner(options, Cache(options.cache), packages)
    for new in tqdm(runner.run_all(jobs), total=len(jobs), unit="job"):
        rows += new
    minutes = round((time.perf_counter() - start) / 60, 1)

    # In the order of the plan, whatever came first.
    order = {
        (m, j.law, j.seed): k for k, (j, m) in enumerate((j, m) for j in jobs for m in j.methods)
    }
    rows.sort(key=lambda r: order[r["method"], r["law"], r["seed"]])
    groups = summaries(rows, jobs)
    print(tables(groups), failures(rows), sep="\n\n")
    seeds = f"{len(options.seeds)} seed{'s' * (len(options.seeds) > 1)}"
    title = f"{len({j.law for j in jobs})} laws, N = {options.n:,}, {seeds}"
    draw_figure(groups, shared_summary(rows), title, out / "known_mi.png")
    settings = asdict(options)
    for folder in ("out", "cache"):  # where things lay is no part of them
        del settings[folder]
    content = provenance("known_mi.py", argv, settings, "cpu") | {"minutes": minutes}
    used = [p for p in packages if any(j.package == p for j in jobs)]
    content |= {"environments": {} if options.report else versions(used, options.cache)}
    content |= {"summaries": groups, "rows": rows}
    (out / "known_mi.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    print(f"\n{minutes} minutes; JSON and figure are in {out}")


if __name__ == "__main__":
    main()
