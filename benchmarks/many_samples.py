"""Time and memory of `estimate_mi` as samples are added, up to a million.

Each number of samples runs in a process of its own, on one thread; its peak memory holds Python,
PyTorch and the samples themselves.
"""

import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import tyro
from provenance import provenance, results_folder

import mi_estimators as mi
from mi_estimators.distributions import CorrelatedGaussian

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Time and memory of estimate_mi as samples are added."""

    samples: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Numbers of samples."""
    dims: int = 10
    """Dimensions of x, and of y."""
    nats: float = 1.0
    """Mutual information of the Gaussians."""
    steps: int = mi.Budget().steps
    """Optimiser steps at most, for each critic and objective."""
    seed: int = 0
    """Of samples and estimates."""
    out: Path | None = None
    """Folder for results; by default benchmarks/results, with --smoke a temporary one."""
    smoke: bool = False
    """Run in seconds; the numbers mean nothing."""


def run(n: int, options: Options) -> Row:
    """One estimate, in a fresh process."""
    law = CorrelatedGaussian.with_mi(options.dims, options.nats)
    generator = torch.Generator().manual_seed(options.seed)
    x, y = (side.float().numpy() for side in law.sample(n, generator=generator))
    start, cpu = time.perf_counter(), time.process_time()
    budget = mi.Budget(steps=options.steps)
    result = mi.estimate_mi(x, y, seed=options.seed, budget=budget, progress=False)
    return {
        "n": n,
        "dim_x": options.dims,
        "dim_y": options.dims,
        "true": law.mutual_information(),
        "estimate": result.value,
        "standard_error": result.standard_error,
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run one after the other; print and save a row for each."""
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(Options, prog="python benchmarks/many_samples.py", args=argv)
    if options.smoke:
        options = Options(samples=(200, 400), steps=5, smoke=True, out=options.out)
    folder = results_folder(options.out, smoke=options.smoke)
    rows = []
    fresh = get_context("spawn").Pool(1, torch.set_num_threads, (1,), maxtasksperchild=1)
    with fresh as pool:
        for row in pool.imap(partial(run, options=options), options.samples):
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            rows.append(row)
        pool.close()
        pool.join()
    kept = {name: value for name, value in asdict(options).items() if name != "out"}
    content = provenance("many_samples.py", argv, kept, "cpu") | {"rows": rows}
    (folder / "many_samples.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"results in {folder}")


if __name__ == "__main__":
    main()
