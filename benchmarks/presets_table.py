"""All that a result file of presets.py holds as one table, the README's.

    python benchmarks/presets_table.py benchmarks/results/presets.json

Rows of other configurations than today's are refused.
"""

import sys
from pathlib import Path

import tyro
from presets import RUNS, table
from resumable import Row, TrainingOptions, as_told, config_of, known_rows, recorded

from dim import TrainConfig
from dim.command import one_line_refusals


def today(name: str, row: Row) -> TrainConfig:
    """The configuration of a run if it were told what a row's was."""
    options = TrainingOptions(
        row["source"], epochs=row["options"]["epochs"], precision=row["precision"]
    )
    return as_told(RUNS[name], options, row["seed"])


def without_a_part(config: TrainConfig) -> Row:
    """The choices that change nothing, blank: those of InfoMax terms where none is trained."""
    trained = config.epochs and (config.alpha or config.beta or config.kappa)
    return {} if trained else dict.fromkeys(("objective", "negatives"))


def whole(rows: list[Row]) -> str:
    """The table of every run on each of the sources, whether there are rows of it or not.

    Raises:
        ValueError: If a run is unknown or there twice, is configured otherwise today, or has seeds
            that were probed for different epochs.
    """
    seen = set()
    probed: dict[tuple[str, str, int], int] = {}
    for row in rows:
        one = row["run"], row["seed"], row["source"], row["epochs"]
        if row["run"] not in RUNS:
            raise ValueError(
                f"{one}: expected one of {', '.join(RUNS)}, received another; move it out of the "
                f"file"
            )
        config = today(row["run"], row)
        blank = without_a_part(config)
        expected_config = recorded(config, row["config"]["image_size"]) | blank
        if one in seen or config_of(row) | blank != expected_config:
            raise ValueError(
                f"{one}: expected one row of today's configuration, received another; move it out "
                "of the file"
            )
        seen.add(one)
        epochs = row["options"]["mlp_epochs"]
        expected = probed.setdefault((row["run"], row["source"], row["epochs"]), epochs)
        if epochs != expected:
            raise ValueError(
                f"{one}: expected {expected} mlp_epochs as in its other seeds, received {epochs}; "
                "probe it again"
            )
    like = {(row["source"], row["options"]["epochs"]): row for row in rows}.values()
    asked = [(name, row["source"], today(name, row).epochs) for name in RUNS for row in like]
    once = list(dict.fromkeys(asked))  # the untrained are of no epoch, whatever is told
    return table(rows, once)


def main(path: tyro.conf.Positional[Path], /) -> None:
    """Print the table of a result file of presets.py."""
    if not path.exists():
        raise ValueError(f"path: expected a result file of presets.py, received {path}, no file")
    print(whole(known_rows(path)))


if __name__ == "__main__":
    with one_line_refusals():
        tyro.cli(main, args=sys.argv[1:])
