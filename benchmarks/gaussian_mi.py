"""Estimates against the truth: every objective on Gaussians whose mutual information is known.

1. Staircase (Belghazi et al. 2018; Poole et al. 2019, Figure 2): 20-D, I from 0 to 10 nats, for y
   as it is and for y cubed, which changes nothing but the critic's work. A critic learns from a
   stream of fresh batches, so that it cannot overfit, and is then read out on fresh samples: all
   pairs within blocks of the batch size, pooled by the statistics of the readout, so that DV takes
   one log over everything and InfoNCE has its ceiling at the log of the batch size.
2. Negatives: is JSD, as Hjelm et al. 2019 say, content with few negatives while InfoNCE and DV need
   many? Only the training negatives vary. All critics are read out alike: as InfoNCE with all of a
   large fresh block as negatives, which no constant, not even one a row, can change.

The true log-ratio is read out beside them: what it misses is the readout's own error, and the rest
is the critic's. Samples are standardised, and nothing smarter: cubes keep their heavy tails.
"""

import copy
import functools
import json
import math
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import torch
import tyro
from jaxtyping import Float
from provenance import provenance, results_folder
from side_by_side import side_by_side
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

import mi_estimators as mi
from mi_estimators.bijections import Cubic
from mi_estimators.distributions import CorrelatedGaussian, JointDistribution, Pushforward
from mi_estimators.reductions import Statistics

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Row = dict[str, Any]

TRUE = "true log-ratio"
OBJECTIVES = (mi.JSD(), mi.DV(), mi.MINE(), mi.NWJ(), mi.InfoNCE(), mi.SMILE())
TRAINED = {type(o).__name__: o for o in OBJECTIVES if not isinstance(o, mi.SMILE)}
READOUTS = {type(o).__name__: o.readout() for o in OBJECTIVES}
# What a line of the table is trained with, read out by, and drawn like (palette: Okabe and Ito).
# SMILE trains as JSD does, so one critic serves both, and DV on that critic too, which shows how
# much of JSD's error is its readout's.
METHODS = {
    "JSD": ("JSD", "JSD", "#0072B2", "o"),
    "JSD, read out by DV": ("JSD", "DV", "#56B4E9", "s"),
    "SMILE": ("JSD", "SMILE", "#009E73", "^"),
    "DV": ("DV", "DV", "#D55E00", "D"),
    "MINE": ("MINE", "MINE", "#E69F00", "P"),
    "NWJ": ("NWJ", "NWJ", "#CC79A7", "X"),
    "InfoNCE": ("InfoNCE", "InfoNCE", "#000000", "*"),
}
FEW_OR_MANY = ("JSD", "DV", "InfoNCE")  # the objectives of the second experiment
WIDE = 4096  # samples in the block that they are read out on


@dataclass(frozen=True)
class Options:
    """Estimates against the truth: every objective on Gaussians whose MI is known."""

    dim: int = 20
    """Dimensions of x and of y."""
    mi: tuple[float, ...] = (0, 2, 4, 6, 8, 10)
    """Mutual information in the staircase, in nats."""
    batch_size: int = 128
    """Samples in a batch of the staircase, and in a block of its readout."""
    steps: int = 2000
    """Training steps of each critic in the staircase."""
    seeds: int = 2
    """Critics for each cell of the staircase."""
    negatives: tuple[int, ...] = (1, 3, 15, 63, 255)
    """Negatives a row in the second experiment, in batches of the largest number + 1."""
    negatives_mi: tuple[float, ...] = (2, 4)
    """Mutual information there, in nats."""
    negatives_steps: int = 800
    """Training steps of each critic there."""
    negatives_seeds: int = 3
    """Critics for each cell there."""
    learning_rate: float = 2e-3
    """Of Adam, at the peak of a one-cycle schedule."""
    readout: int = 32768
    """Fresh samples that each critic of the staircase is read out on."""
    critic: Literal["separable", "concat"] = "separable"
    """<f(x), g(y)>, or a perceptron on pairs, which costs a pass for each of them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: on a GPU if there is one."""
    workers: int = 2
    """Processes side by side, one thread each."""
    out: Path | None = None
    """Folder for results; by default benchmarks/results, with --smoke a temporary one."""
    smoke: bool = False
    """Run every part in seconds; the numbers mean nothing."""

    def check(self) -> None:
        """Raise a ValueError for what cannot be run."""
        at_least = dict(dim=1, mi=0, batch_size=2, steps=10, seeds=1, workers=1, negatives=1)
        at_least |= dict(negatives_mi=0, negatives_steps=10, negatives_seeds=1)
        for name, least in (at_least | dict(readout=self.batch_size)).items():
            value = getattr(self, name)
            if value == () or np.min(value) < least or not np.isfinite(value).all():
                raise ValueError(
                    f"--{name.replace('_', '-')}: expected at least {least}, received {value}"
                )
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"--learning-rate: expected more than 0, got {self.learning_rate}")
        for nats in (*self.mi, *self.negatives_mi):
            CorrelatedGaussian.with_mi(self.dim, nats)  # says so if there is no such law
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device: there is no CUDA device here; try --device cpu")


# --- One critic -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A critic to train (or the true log-ratio) and to read out."""

    experiment: Literal["staircase", "negatives"]
    transform: str  # of y: "plain" or "cubic"
    true: float
    objective: str
    negatives: int
    seed: int


class Stream:
    """Standardised samples of a law, none of them ever seen before.

    They depend on law and seed alone: all objectives learn from, and are read out on, the same.
    """

    def __init__(self, law: JointDistribution, seed: int, device: str) -> None:
        self.law, self.device = law, device
        self.generator = torch.Generator().manual_seed(seed)
        sample = law.sample(10_000, generator=self.generator)
        self.moments = [(part.mean(0), part.std(0)) for part in sample]

    def draw(self, n: int) -> list[Float[Tensor, "n d"]]:
        """The next n pairs."""
        parts = zip(self.law.sample(n, generator=self.generator), self.moments, strict=True)
        return [((part - mean) / sd).float().to(self.device) for part, (mean, sd) in parts]


class TrueLogRatio(mi.Critic):
    """The critic that all others try to be: encodes to what was there before standardising."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    def encode_x(self, x: Tensor) -> Tensor:
        """X in float64, on the CPU."""
        mean, sd = self.stream.moments[0]
        return x.cpu().double() * sd + mean

    def encode_y(self, y: Tensor) -> Tensor:
        """Y in float64, on the CPU."""
        mean, sd = self.stream.moments[1]
        return y.cpu().double() * sd + mean

    def score(self, u: Tensor, v: Tensor) -> Tensor:
        """The law's own log density ratio."""
        return self.stream.law.log_ratio(u, v)


def run(job: Job, options: Options, device: str) -> list[Row]:
    """Train the job's critic and read it out: one row for each readout."""
    start = time.perf_counter()
    law: JointDistribution = CorrelatedGaussian.with_mi(options.dim, job.true)
    stream = Stream(
        law if job.transform == "plain" else Pushforward(law, g=Cubic()), job.seed, device
    )
    critic = TrueLogRatio(stream) if job.objective == TRUE else train(job, options, stream)
    estimates = read_out(job, options, critic, stream)
    seconds = round(time.perf_counter() - start, 2)
    return [
        {**asdict(job), "readout": readout, "estimate": estimate, "seconds": seconds}
        for readout, estimate in estimates.items()
    ]


def train(job: Job, options: Options, stream: Stream) -> mi.Critic:
    """Learn from fresh batches; returns the moving average of the critic."""
    torch.manual_seed(job.seed)
    shuffles = torch.Generator().manual_seed(job.seed)
    batch_size, steps = options.batch_size, options.steps
    if job.experiment == "negatives":
        batch_size, steps = max(options.negatives) + 1, options.negatives_steps
    make = mi.Separable.mlp if options.critic == "separable" else mi.Concat
    critic = make(options.dim, options.dim, hidden=128).to(stream.device)
    objective = copy.deepcopy(TRAINED[job.objective]).to(stream.device)
    # All other samples are what Shuffled(batch_size - 1) draws too, at many times the cost.
    few = job.negatives < batch_size - 1
    estimator = mi.MIEstimator(
        critic, objective, mi.Shuffled(job.negatives) if few else mi.InBatch()
    )
    optimiser = torch.optim.Adam(critic.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.learning_rate, steps, pct_start=0.1, cycle_momentum=False
    )
    average = AveragedModel(critic, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    for _ in range(steps):
        scores = estimator.scores(*stream.draw(batch_size), generator=shuffles)
        # As in estimate_mi, critics learn log-ratios: T = 0 is independence for all objectives.
        loss = -objective(scores.map(objective.from_log_ratio))
        optimiser.zero_grad()
        loss.backward()
        # Not clipped: large gradients from the tail of e^T are all that holds that tail down.
        optimiser.step()
        schedule.step()
        average.update_parameters(critic)
    critic.load_state_dict(average.module.state_dict())
    return critic


@torch.no_grad()
def read_out(job: Job, options: Options, critic: mi.Critic, stream: Stream) -> dict[str, float]:
    """Estimates in nats on fresh blocks, pooled over them by the statistics of each readout."""
    names = [r for o, r, *_ in METHODS.values() if job.objective in (o, TRUE)]
    block, blocks = options.batch_size, options.readout // options.batch_size
    if job.experiment == "negatives":
        names, block, blocks = ["InfoNCE", "DV"], min(WIDE, options.readout), 1
    tiles: dict[str, list[Statistics]] = {name: [] for name in names}
    values = {}
    estimator = mi.MIEstimator(critic)
    for _ in range(blocks):
        scores = estimator.scores(*stream.draw(block)).map(Tensor.double)
        if job.experiment == "negatives":
            # E_Q[r] = 1 fixes what training left free, or DV and the plug-in would mean nothing.
            trained = TRAINED.get(job.objective, TRAINED["JSD"])
            scores = trained.log_ratio(scores.map(trained.from_log_ratio))
            values["plug-in"] = scores.joint.mean().item()
        for name, own in tiles.items():
            readout = READOUTS[name]
            own.append(readout.statistics(scores.map(readout.from_log_ratio)))
    pooled = {name: READOUTS[name].value(Statistics.cat(own)).item() for name, own in tiles.items()}
    return pooled | values


# --- All critics ------------------------------------------------------------------------------


def plan(options: Options) -> list[Job]:
    """Every critic of both experiments."""
    k, widest = options.batch_size - 1, max(options.negatives)
    staircase = product(("plain", "cubic"), options.mi, (TRUE, *TRAINED), [k], range(options.seeds))
    cells = [(TRUE, widest), *product(FEW_OR_MANY, options.negatives)]
    negatives = product(options.negatives_mi, cells, range(options.negatives_seeds))
    return [
        *(Job("staircase", *cell) for cell in staircase),
        *(Job("negatives", "plain", nats, *cell, seed) for nats, cell, seed in negatives),
    ]


def run_all(jobs: Sequence[Job], options: Options, device: str) -> Iterator[list[Row]]:
    """The rows of each job, in order."""
    work = functools.partial(run, options=options, device=device)
    return side_by_side(work, jobs, options.workers)


# --- Tables -----------------------------------------------------------------------------------


def over_seeds(rows: Iterable[Row], **cell: Any) -> Row:
    """Statistics over the rows of one cell."""
    rows = [row for row in rows if cell.items() <= row.items()]
    truth, values = rows[0]["true"], np.array([row["estimate"] for row in rows])
    return {
        "true": truth,
        "mean": values.mean().item(),
        "bias": values.mean().item() - truth,
        "sd": values.std(ddof=1).item() if len(values) > 1 else math.nan,
        "RMSE": np.sqrt(np.square(values - truth).mean()).item(),
        "seconds": statistics.mean(row["seconds"] for row in rows),
    }


def staircase_table(rows: Sequence[Row], options: Options) -> list[Row]:
    """One row for each transform, method and mutual information."""
    rows = [row for row in rows if row["experiment"] == "staircase"]
    summary = []
    for transform, method, nats in product(("plain", "cubic"), METHODS, options.mi):
        objective, readout, *_ = METHODS[method]
        cell = dict(transform=transform, true=nats, readout=readout)
        of_truth = over_seeds(rows, objective=TRUE, **cell)["mean"]
        own = over_seeds(rows, objective=objective, **cell)
        summary.append({"y": transform, "method": method, **own, TRUE: of_truth})
    return summary


def negatives_table(rows: Sequence[Row], options: Options) -> list[Row]:
    """One row for each mutual information, objective and number of negatives."""
    rows = [row for row in rows if row["experiment"] == "negatives"]
    summary = []
    for nats, objective in product(options.negatives_mi, (*FEW_OR_MANY, TRUE)):
        for k in options.negatives if objective != TRUE else [max(options.negatives)]:
            cell = dict(true=nats, objective=objective, negatives=k)
            fixed = over_seeds(rows, readout="InfoNCE", **cell)
            others = {
                f"{r} bias": over_seeds(rows, readout=r, **cell)["bias"] for r in ("DV", "plug-in")
            }
            summary.append({"objective": objective, "negatives": k, **fixed, **others})
    return summary


def show(rows: Sequence[Row]) -> str:
    """Rows as columns of text."""

    def text(value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.1e}" if abs(value) >= 1e4 else f"{value:z.2f}"

    lines = [list(rows[0]), *([text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(entry.rjust(width) for entry, width in zip(line, widths, strict=True))
        for line in lines
    )


# --- Figures ----------------------------------------------------------------------------------


def draw_staircase(rows: Sequence[Row], options: Options, path: Path) -> None:
    """Estimate against truth, one panel for each transform."""
    ceiling, top = math.log(options.batch_size), max(options.mi)
    low, high = -1.0, 1.3 * max(top, ceiling)
    figure, axes = plt.subplots(1, 2, figsize=(12, 6), sharey=True, layout="constrained")
    for axis, transform, title in zip(axes, ("plain", "cubic"), ("y", "y³"), strict=True):
        axis.plot([0, top], [0, top], color="0.4", lw=1, label="identity")
        axis.axhline(ceiling, color="0.4", ls=":")
        label = f"InfoNCE's ceiling:\nlog(K + 1) = log {options.batch_size} = {ceiling:.2f}"
        axis.text(0, ceiling + 0.1, label, color="0.3")
        for number, (method, (*_, colour, marker)) in enumerate(METHODS.items()):
            own = [row for row in rows if row["y"] == transform and row["method"] == method]
            # Side by side, or the markers hide each other.
            x, mean, sd = np.array([[row[key] for key in ("true", "mean", "sd")] for row in own]).T
            x += 0.006 * top * (number - 3)
            seen = mean > low  # false for NaN
            style = dict(color=colour, marker=marker, capsize=2, lw=1.2, label=method)
            axis.errorbar(x[seen], mean[seen], np.nan_to_num(sd[seen]), **style)
            axis.plot(x[~seen], np.full((~seen).sum(), low + 0.3), "v", color=colour, alpha=0.8)
        axis.text(0, low + 0.22, "▼ lower, or not finite", color="0.3")
        axis.set(title=title, xlabel="true mutual information [nats]", ylim=(low, high))
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("estimate [nats]")
    axes[0].legend(loc="upper left", frameon=False, ncols=2)
    figure.suptitle(
        f"{options.dim}-D Gaussians, {options.critic} critic, {options.steps:,} fresh batches of "
        f"{options.batch_size}; mean and sd over {options.seeds} critics a point"
    )
    figure.savefig(path, dpi=130)


def draw_negatives(rows: Sequence[Row], options: Options, path: Path) -> None:
    """Error against the number of training negatives, one panel for each mutual information."""
    panels, ks = len(options.negatives_mi), options.negatives
    size = (5.5 * panels + 0.5, 4.5)
    figure, axes = plt.subplots(1, panels, figsize=size, squeeze=False, layout="constrained")
    for axis, nats in zip(axes[0], options.negatives_mi, strict=True):
        for number, objective in enumerate(FEW_OR_MANY):
            own = [r for r in rows if r["true"] == nats and r["objective"] == objective]
            k, bias, sd = np.array([[r[key] for key in ("negatives", "bias", "sd")] for r in own]).T
            style = dict(color=METHODS[objective][2], marker=METHODS[objective][3], capsize=3)
            x = k * 2 ** (0.1 * (number - 1))  # side by side
            axis.errorbar(x, -bias, np.nan_to_num(sd), label=objective, **style)
        floor = next(-r["bias"] for r in rows if r["true"] == nats and r["objective"] == TRUE)
        axis.axhline(floor, color="0.4", ls=":", label=TRUE)
        axis.set_xscale("log", base=2)
        axis.set_xticks(ks, [str(k) for k in ks])
        axis.set(title=f"I = {nats:g} nats", xlabel="training negatives a row")
        axis.set(ylabel="truth - estimate [nats]")
        axis.grid(alpha=0.25)
    axes[0, 0].legend(frameon=False)
    figure.suptitle(
        f"All read out as InfoNCE with {min(WIDE, options.readout) - 1:,} negatives; mean and sd "
        f"over {options.negatives_seeds} critics a point"
    )
    figure.savefig(path, dpi=130)


# --- Command line -----------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Run both experiments; print the tables, save JSON and figures."""
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(Options, prog="python benchmarks/gaussian_mi.py", args=argv)
    if options.smoke:
        small: Row = dict(
            dim=3, mi=(0, 1), steps=20, seeds=1, workers=1, readout=512, batch_size=32
        )
        few: Row = dict(negatives=(1, 3), negatives_mi=(1,), negatives_steps=20, negatives_seeds=2)
        options = replace(options, **small, **few)
    try:
        options.check()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    out = results_folder(options.out, smoke=options.smoke)

    start, jobs = time.perf_counter(), plan(options)
    rows: list[Row] = []
    for new in tqdm(run_all(jobs, options, device), total=len(jobs), unit="critic"):
        rows += new
    minutes = round((time.perf_counter() - start) / 60, 1)

    staircase, negatives = staircase_table(rows, options), negatives_table(rows, options)
    print(show(staircase), show(negatives), sep="\n\n")
    draw_staircase(staircase, options, out / "gaussian_mi.png")
    draw_negatives(negatives, options, out / "negatives.png")
    settings = asdict(options)
    del settings["out"]  # where the results lay is no part of them
    content = provenance("gaussian_mi.py", argv, settings, device) | {"minutes": minutes}
    content |= {"staircase": staircase, "negatives": negatives, "rows": rows}
    # JSON knows neither NaN nor infinity: null.
    strict = json.loads(json.dumps(content), parse_constant=lambda _: None)
    (out / "gaussian_mi.json").write_text(json.dumps(strict, indent=1) + "\n")
    print(f"\n{minutes} minutes; JSON and figures are in {out}")


if __name__ == "__main__":
    main()
