"""Deep InfoMax's presets, trained and probed one after the other, beside the paper's figures.

    python benchmarks/presets.py --data cifar10.npz --minutes 9   # as often as it takes

What takes longer than `--minutes` goes on with the same command (see resumable.py).
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from string import ascii_lowercase

import tyro
from infomax_terms import JSD
from known_mi import chosen, markdown
from resumable import (
    NOT_RUN,
    Row,
    TrainingOptions,
    as_told,
    carry_out,
    folder_of,
    images,
    in_place,
    made_by,
    over_seeds,
)

from dim import PRESETS, DeepInfoMax, ImageData, TrainConfig
from dim.checkpoint import WEIGHTS
from dim.command import one_line_refusals, resolve_device
from dim.evaluate import LAYERS, Battery, probe_encoder
from dim.measures import codes_of, measures_of
from dim.neighbours import draw_runs
from dim.train import flushing_denormals

Asked = tuple[str, str, int]  # name of a run, of its source, and epochs
MLP = "MLP Y / fc / conv"  # LAYERS, as the paper calls them
HEADER = ("run", "data", "epochs", "n", "20-NN Y", "linear Y", MLP, "minutes", f"paper: {MLP}")

# By importance: what is cut off last matters least.
RUNS: dict[str, TrainConfig] = {
    "paper-local-jsd": PRESETS["paper-local-jsd"],
    "paper-local-infonce": PRESETS["paper-local-infonce"],
    "su-kl": PRESETS["su-kl"],
    "su-kl, global only": replace(PRESETS["su-kl"], beta=0.0),
    "su-kl, local only": replace(PRESETS["su-kl"], alpha=0.0),
    "default": PRESETS["default"],
    "fast": PRESETS["fast"],
    "default, no coordinates": replace(PRESETS["default"], delta=0.0),
    "default, relative": replace(PRESETS["default"], eta=1.0),
    "default, occlusion": replace(PRESETS["default"], occlusion=0.4),
    "default, relative, occlusion": replace(PRESETS["default"], eta=1.0, occlusion=0.4),
    "default, JSD": JSD,
    "default, JSD, no coordinates": replace(JSD, delta=0.0),
    "default, JSD, occlusion": replace(JSD, occlusion=0.4),
    "default, JSD, locations": replace(JSD, kappa=1.0),
    "default, JSD, coarse": replace(JSD, coarseness=2),
    "paper-global": PRESETS["paper-global"],
    "paper-local-dv": PRESETS["paper-local-dv"],
    "paper-local-global": PRESETS["paper-local-global"],
    "autoencoder": PRESETS["autoencoder"],
    "vae": PRESETS["vae"],
    "class-conditional-vae": PRESETS["class-conditional-vae"],
    "two-view": PRESETS["two-view"],
    "untrained basic32x32": replace(PRESETS["default"], delta=0.0, epochs=0),
    "untrained su": replace(PRESETS["su-kl"], epochs=0),
}
# Hjelm et al. 2019, CIFAR-10: Y, fc and conv by the MLP, those of presets of Table 1, those of
# `default` of Table 4: infoNCE and what is added to it. Those marked (v5) are of the preprint's
# last version, not checked against the paper.
PAPER = {
    "paper-local-jsd": ("66.96", "73.62", "73.25"),
    "paper-local-infonce": ("69.13", "75.57", "75.21"),
    "paper-local-dv": ("64.71 (v5)", "70.60 (v5)", "72.66 (v5)"),
    "default, no coordinates": ("70.65", "73.33", "77.46"),
    "default, relative": ("71.56", "73.89", "77.28"),
    "default, relative, occlusion": ("73.99", "75.15", "77.27"),
    "paper-global": ("43.17", "52.84", "52.2"),
    "vae": ("54.61", "60.54", "60.71"),
    "autoencoder": ("54.47 (v5)", "55.78 (v5)", "62.19 (v5)"),
}


@dataclass(frozen=True)
class Options(TrainingOptions):
    """The presets of Deep InfoMax, trained, probed and put beside the paper's figures."""

    runs: tuple[str, ...] = ()
    """Which (su-kl*); default: all."""
    neighbours: bool = False
    """Also draw what each of them finds alike, the first seed's, beside pixels and no training."""


def probed(config: TrainConfig, model: DeepInfoMax, data: ImageData, battery: Battery) -> Row:
    """Probes and measures of a trained model.

    All probes of Y and, of two views, of fc, which others report: Y is their projection. Of the
    other layers the paper's.
    """
    codes = codes_of(model.encoder, data)
    whole = 2 if config.views == 2 else 1
    rows = probe_encoder(model.encoder, "trained", data, battery, LAYERS[:whole], codes=codes)
    if battery.mlp_epochs:
        of_paper = Battery(neighbours=(), linear=False, svm=False, mlp_epochs=battery.mlp_epochs)
        rows += probe_encoder(model.encoder, "trained", data, of_paper, LAYERS[whole:])
    measures = measures_of(model, data, codes)
    return {"probes": [asdict(row) for row in rows], "measures": [asdict(m) for m in measures]}


def table(rows: Sequence[Row], asked: Sequence[Asked]) -> str:
    """A line for each of what is asked for: mean ± sd over its seeds, beside the paper's.

    Minutes are of one run, by what it was computed on, named below.
    """

    def cell(found: Sequence[Row], layer: str, probe: str) -> str:
        return over_seeds(
            [
                100 * row["accuracy"][probe]
                for each in found
                for row in each["probes"]
                if row["layer"] == layer and probe in row["accuracy"]
            ]
        )

    def of_code(found: Sequence[Row], probe: str) -> str:
        fc = cell(found, "hidden", probe)
        return cell(found, "z_mean", probe) + (f", fc {fc}" if fc != NOT_RUN else "")

    machines = dict(zip(dict.fromkeys(map(machine, rows)), ascii_lowercase))  # noqa: B905
    lines = []
    for run, source, epochs in asked:
        found = [r for r in rows if (r["run"], r["source"], r["epochs"]) == (run, source, epochs)]
        minutes = [
            f"{statistics.mean(seen):.1f} {mark}"
            for name, mark in machines.items()
            if (seen := [row["minutes"] for row in found if machine(row) == name])
        ]
        probes = [cell(found, layer, "MLP") for layer in LAYERS]
        lines.append(
            [
                run,
                Path(source).stem,
                str(epochs),
                str(len(found)),
                of_code(found, "20-NN"),
                of_code(found, "linear"),
                NOT_RUN if set(probes) == {NOT_RUN} else " / ".join(probes),
                ", ".join(minutes),
                " / ".join(PAPER.get(run, ())),
            ]
        )
    legend = "; ".join(f"{mark}: {name}" for name, mark in machines.items())
    return markdown(HEADER, lines) + (f"\n\nMinutes on {legend}." if legend else "")


def machine(row: Row) -> str:
    """What a row was computed on, and in which precision."""
    on = row["hardware"]
    threads = f"{on['threads']} thread" + "s" * (on["threads"] > 1)
    cpu = [on["cpu"], *([on["instructions"]] if "instructions" in on else []), threads]
    return ", ".join([*([on["gpu"]] if on["gpu"] else cpu), row["precision"]])


def compare(
    runs: Mapping[str, TrainConfig],
    rows: Sequence[Row],
    options: Options,
    path: Path,
    argv: Sequence[str],
) -> None:
    """Draw the neighbours of the finished runs whose folders are here, and keep their precision."""
    seed = options.seeds[0]
    done = [row["run"] for row in rows if row["seed"] == seed]
    folders = {}
    for name in done:
        config = as_told(runs[name], options, seed)
        folder = folder_of(name, config, options)
        if not config.epochs:  # the untrained come anyway
            continue
        if (folder / WEIGHTS).exists():
            folders[name] = folder
        else:
            print(f"{name}: not drawn, {folder} is not here", file=sys.stderr)
    if not folders:
        return
    device, data = resolve_device(options.device), images(options, seed)
    precision = draw_runs(folders, data, path=path, references=True, device=device, seed=seed)
    content = made_by(options, "presets", argv) | {"precision_at_9": precision}
    path.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    for name, share in precision.items():
        print(f"precision@9, {name}: {100 * share:.1f} %")


@flushing_denormals()  # as dim.train does, from the first thread on
def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, print the table."""
    argv = sys.argv[1:] if argv is None else argv
    with one_line_refusals():
        options = tyro.cli(Options, prog="python benchmarks/presets.py", args=argv)
        names = chosen("runs", options.runs, RUNS)
        runs = {name: RUNS[name] for name in names}
        options, out = in_place(options)
        look = partial(probed, battery=Battery(mlp_epochs=options.mlp_epochs))
        path = out / "presets.json"
        outcome = carry_out(runs, options, look, path=path, script="presets", argv=argv)
        rows = outcome.rows
        source = Path(options.data).name
        asked = [(name, source, as_told(runs[name], options, 0).epochs) for name in names]
        print(table(rows, asked))
        if options.neighbours:
            compare(runs, rows, options, out / "presets_neighbours.png", argv)
        outcome.check()


if __name__ == "__main__":
    main()
