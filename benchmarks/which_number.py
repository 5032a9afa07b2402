"""Which number should I believe? What an estimate says of itself, where the truth is known.

Four figures for docs/which_number.md:

1. bracket: value, certified bound and other readouts against the truth, from 0 to 10 nats.
2. samples: the same law at more and more samples: what is still to be gained by collecting?
3. deterministic: y is a function of x, the information infinite, and every number a lower bound.
4. parts: which part made the number, and what it would be without it, on laws of different kinds.
"""

import functools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import tyro
from known_mi_laws import blobs
from provenance import provenance, results_folder
from side_by_side import side_by_side
from tqdm import tqdm

import mi_estimators as mi
from mi_estimators.bijections import Cubic
from mi_estimators.distributions import (
    CorrelatedGaussian,
    JointDistribution,
    NoisyCircles,
    Product,
    Pushforward,
    StudentT,
    beyond_normal,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Row = dict[str, Any]
SPIRAL = "spiral-multinormal-sparse-3-3-2-2.0"
WITHOUT = {
    "all parts": {},
    "no closed form": {"baseline": None},
    "JSD alone": {"objective": mi.JSD()},
    "plain JSD bound": {"objective": mi.JSD(), "baseline": None, "neighbours": None},
}


@dataclass(frozen=True)
class Options:
    """What an estimate says of itself, where the truth is known."""

    n: int = 5000
    """Samples of each estimate, but for the figure over samples."""
    nats: tuple[float, ...] = (0, 1, 2, 4, 6, 8, 10)
    """Information of the Gaussians in the figure over information."""
    samples: tuple[int, ...] = (250, 500, 1000, 2000, 4000, 8000, 16000)
    """Numbers of samples in the figures over samples."""
    seed: int = 0
    """Of samples and estimates."""
    steps: int = mi.Budget().steps
    """Optimiser steps at most, for each critic and objective."""
    workers: int = 2
    """Processes side by side, one thread each."""
    out: Path | None = None
    """Folder for results; by default benchmarks/results, with --smoke a temporary one."""
    smoke: bool = False
    """Run every part in seconds; the numbers mean nothing."""


@dataclass(frozen=True)
class Job:
    """One estimate of one figure."""

    figure: str
    law: str
    n: int
    seed: int
    without: str = "all parts"


@functools.cache
def laws() -> dict[str, JointDistribution | None]:
    """The laws of all figures by name; None: y = sin(5x), of infinite information."""
    return {
        SPIRAL: beyond_normal()[SPIRAL],
        "Gaussian 10 x 10": CorrelatedGaussian.with_mi(10, 2),
        "cubed Gaussian 10 x 10": Pushforward(CorrelatedGaussian.with_mi(10, 2), g=Cubic()),
        "Student-t 3 x 3": StudentT(torch.eye(6, dtype=torch.float64), dim_x=3, df=2),
        "circle": NoisyCircles((1,), sigma=0.1),
        "three circles": Product([NoisyCircles((1,), sigma=0.1)] * 3),
        "mixture 5 x 5": blobs(10, dim=5, spread=1, seed=2),
        "deterministic": None,
    }


def law_of(name: str) -> JointDistribution | None:
    """A law by name; a number is a 10-D Gaussian of so many nats, with cubed y."""
    if name in laws():
        return laws()[name]
    return Pushforward(CorrelatedGaussian.with_mi(10, float(name)), g=Cubic())


def plan(options: Options) -> list[Job]:
    """Every estimate of the figures."""
    n, seed = options.n, options.seed
    return [
        *(Job("bracket", str(nats), n, seed) for nats in options.nats),
        *(Job("samples", SPIRAL, size, seed) for size in options.samples),
        *(Job("deterministic", "deterministic", size, seed) for size in options.samples),
        *(
            Job("parts", law, n, seed, without)
            for law in laws()
            for without in WITHOUT
            if law != "deterministic"
        ),
    ]


def run(job: Job, steps: int) -> Row:
    """One estimate, and the truth."""
    generator = torch.Generator().manual_seed(1000 * job.seed + job.n)
    law = law_of(job.law)
    true: float | None
    if law is None:
        x = torch.randn(job.n, 1, generator=generator, dtype=torch.float64)
        y, true = (5 * x).sin(), None
    else:
        (x, y), true = law.sample(job.n, generator=generator), law.mutual_information()
    result = mi.estimate_mi(
        x,
        y,
        seed=job.seed,
        budget=mi.Budget(steps=steps),
        progress=False,
        **WITHOUT[job.without],  # type: ignore[arg-type]
    )
    low, high = result.interval()
    return asdict(job) | {
        "true": true,
        "value": result.value,
        "low": low,
        "high": high,
        "origin": result.origin,
        "kind": result.kind,
        "baseline": result.baseline,
        "certified": result.certified,
        "ceiling": result.ceiling,
        "p_value": result.p_value,
        "effective_sample_size": result.effective_sample_size,
        "readouts": result.readouts,
        "warnings": result.warnings,
        "sentence": str(result),
    }


def draw(rows: Sequence[Row], folder: Path) -> None:
    """The four figures."""
    for figure, abscissa, label in (
        ("bracket", "true", "true mutual information (nats)"),
        ("samples", "n", "samples"),
        ("deterministic", "n", "samples"),
    ):
        own = [row for row in rows if row["figure"] == figure]
        fig, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
        along = [row[abscissa] for row in own]
        values = np.array([row["value"] for row in own])
        errors = np.array([(row["value"] - row["low"], row["high"] - row["value"]) for row in own])
        axes.errorbar(along, values, errors.T, fmt="o-", color="black", label="value, 95 %")
        axes.plot(
            along, [row["certified"] for row in own], "v-", color="#009E73", label="certified"
        )
        if figure != "samples":  # there it is far above all that matters
            ceilings = [row["ceiling"] for row in own]
            axes.plot(along, ceilings, ":", color="grey", label="ceiling, ln n")
        for name, colour in zip(own[0]["readouts"], COLOURS, strict=True):
            axes.plot(
                along,
                [max(row["readouts"][name], -0.5) for row in own],
                "--",
                color=colour,
                label=f"{name} readout",
            )
        if figure == "bracket":
            axes.plot(along, along, color="grey", linewidth=0.8, label="truth")
        elif own[0]["true"] is not None:
            axes.axhline(own[0]["true"], color="grey", linewidth=0.8, label="truth")
        if abscissa == "n":
            axes.set_xscale("log")
        axes.set(xlabel=label, ylabel="nats", title=TITLES[figure])
        axes.legend(fontsize=8, loc="lower right" if figure == "samples" else "upper left")
        fig.savefig(folder / f"which_number_{figure}.png", dpi=130)
        plt.close(fig)
    own = [row for row in rows if row["figure"] == "parts"]
    names = list(dict.fromkeys(row["law"] for row in own))
    fig, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for k, (without, colour) in enumerate(zip(WITHOUT, COLOURS, strict=True)):
        off = [row["value"] - row["true"] for row in own if row["without"] == without]
        axes.barh(np.arange(len(names)) + 0.2 * k, off, 0.2, color=colour, label=without)
    axes.set_yticks(np.arange(len(names)) + 0.3, names)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel="error (nats)", title=TITLES["parts"])
    axes.legend(fontsize=8)
    fig.savefig(folder / "which_number_parts.png", dpi=130)
    plt.close(fig)


COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#CC79A7")
TITLES = {
    "bracket": "10-D Gaussians with cubed y",
    "samples": "A 3-D spiral, as samples are added",
    "deterministic": "y = sin(5x): infinite information",
    "parts": "What each part is good for",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run all estimates; write rows and figures."""
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(Options, args=argv)
    if options.smoke:
        options = Options(
            n=100, nats=(0, 1), samples=(100, 120), steps=5, workers=1, smoke=True, out=options.out
        )
    folder = results_folder(options.out, smoke=options.smoke)
    jobs = plan(options)
    work = functools.partial(run, steps=options.steps)
    rows = list(tqdm(side_by_side(work, jobs, options.workers), total=len(jobs)))
    kept = {name: value for name, value in asdict(options).items() if name != "out"}
    content = provenance("which_number.py", argv, kept, "cpu") | {"rows": rows}
    (folder / "which_number.json").write_text(json.dumps(content, indent=1) + "\n")
    draw(rows, folder)
    for row in rows:
        true = "infinite" if row["true"] is None else f"{row['true']:.3f}"
        print(f"{row['figure']:14} {row['law']:40} {row['without']:16} true {true}")
        print(f"    {row['sentence']}")
    print(f"results in {folder}")


if __name__ == "__main__":
    main()
