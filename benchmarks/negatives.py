"""How many negatives does Deep InfoMax need? Accuracy of Y by their number, for three objectives.

    python benchmarks/negatives.py --data cifar10.npz --minutes 9   # as often as it takes

The figure of Hjelm et al. 2019 (Appendix A.2): the local term alone, trained by JSD, infoNCE and DV
with 1 to 31 other images as the negatives of each, at the same location, and with all others of the
batch. What takes longer than `--minutes` goes on with the same command (see resumable.py).
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import tyro
from known_mi import markdown
from resumable import Row, TrainingOptions, carry_out, in_place, over_seeds

from dim import PRESETS, DeepInfoMax, ImageData, TrainConfig
from dim.command import one_line_refusals
from dim.evaluate import Battery, probe_encoder
from dim.train import flushing_denormals

OBJECTIVES = {
    "JSD": PRESETS["paper-local-jsd"],
    "infoNCE": PRESETS["paper-local-infonce"],
    "DV": PRESETS["paper-local-dv"],
}
# Palette: Okabe and Ito.
DRAWN = {"JSD": ("#0072B2", "o"), "infoNCE": ("#000000", "*"), "DV": ("#D55E00", "D")}
ALL = PRESETS["paper-local-jsd"].batch_size - 1
PAPER_UNITS = PRESETS["paper-local-jsd"].head_units

Cell = tuple[str, int]  # an objective, and how many negatives it has


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Accuracy of Deep InfoMax by the number of negatives."""

    epochs: int | None = 100
    """Of each run; the paper's are 1,000."""
    folder: Path = Path("runs/negatives")
    """Of the run folders."""
    counts: tuple[int, ...] = (1, 3, 7, 15, 31, ALL)
    """Negatives for each positive; 63, all other images of a batch, at most."""
    head_units: int = PAPER_UNITS
    """Of the heads; the paper's are too many for a CPU."""


def with_negatives(config: TrainConfig, k: int) -> TrainConfig:
    """A configuration with k other images of the batch as the negatives of each.

    Raises:
        ValueError: If there are not so many.
    """
    if not 1 <= k <= ALL:
        raise ValueError(
            f"--counts: expected 1 to {ALL}, the other images of a batch, received {k}"
        )
    if k == ALL:
        return replace(config, negatives="in-batch")
    return replace(config, negatives="shuffled", negatives_k=k)


def name_of(cell: Cell, config: TrainConfig) -> str:
    """What a run is called."""
    objective, k = cell
    narrower = "" if config.head_units == PAPER_UNITS else f", {config.head_units} units"
    return f"{objective}, {k} negatives{narrower}"


def probed(_: TrainConfig, model: DeepInfoMax, data: ImageData, battery: Battery) -> Row:
    """Probes of Y."""
    rows = probe_encoder(model.encoder, "trained", data, battery, ["z_mean"])
    return {"probes": [asdict(row) for row in rows]}


def accuracies(
    rows: Sequence[Row], runs: Mapping[Cell, TrainConfig], probe: str
) -> dict[Cell, list[float]]:
    """Test accuracies of Y in %, one a seed."""
    cells = {name_of(cell, config): cell for cell, config in runs.items()}
    found: dict[Cell, list[float]] = {}
    for row in rows:
        (probes,) = row["probes"]
        found.setdefault(cells[row["run"]], []).append(100 * probes["accuracy"][probe])
    return found


def table(found: Mapping[Cell, Sequence[float]], probe: str, counts: Sequence[int]) -> str:
    """A line for each objective: mean ± sd over its seeds, by the number of negatives."""
    header = (f"{probe} Y, %", *(f"{k} negatives" for k in counts))
    return markdown(
        header, [[o, *(over_seeds(found.get((o, k), ())) for k in counts)] for o in OBJECTIVES]
    )


def draw(
    found: Mapping[Cell, Sequence[float]], probe: str, counts: Sequence[int], path: Path
) -> None:
    """A line for each objective over the logarithm of the number of negatives."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for objective, (colour, marker) in DRAWN.items():
        of = {k: found[objective, k] for k in counts if (objective, k) in found}
        axes.errorbar(
            list(of),
            [statistics.mean(values) for values in of.values()],
            [statistics.stdev(values) if len(values) > 1 else 0 for values in of.values()],
            label=objective,
            color=colour,
            marker=marker,
            capsize=3,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(k) for k in counts])
    axes.minorticks_off()
    axes.set(xlabel="negatives for each positive", ylabel=f"test accuracy of Y in %, {probe} probe")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


@flushing_denormals()  # as dim.train does, from the first thread on
def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, print the table, draw the figure."""
    argv = sys.argv[1:] if argv is None else argv
    with one_line_refusals():
        options = tyro.cli(Options, prog="python benchmarks/negatives.py", args=argv)
        options, out = in_place(options)
        runs = {
            (objective, k): with_negatives(replace(config, head_units=options.head_units), k)
            for k in options.counts
            for objective, config in OBJECTIVES.items()
        }
        battery = Battery(neighbours=(20,), svm=False, mlp_epochs=options.mlp_epochs)
        look = partial(probed, battery=battery)
        path = out / "infomax_negatives.json"
        named = {name_of(cell, config): config for cell, config in runs.items()}
        outcome = carry_out(named, options, look, path=path, script="negatives", argv=argv)
        probe = "MLP" if options.mlp_epochs else "linear"
        found = accuracies(outcome.rows, runs, probe)
        print(table(found, probe, options.counts))
        if found:
            draw(found, probe, options.counts, path.with_suffix(".png"))
        outcome.check()


if __name__ == "__main__":
    main()
