"""All that a result file of presets.py holds as one table, the README's.

    python benchmarks/presets_table.py benchmarks/results/presets.json

Rows of other configurations than today's are refused.
"""

import sys
from pathlib import Path

import tyro
from presets import RUNS, table
from resumable import Row, TrainingOptions, as_told, known_rows, recorded

from dim import TrainConfig
from dim.command import one_line_refusals


def today(name: str, row: Row) -> TrainConfig:
    """The configuration of a run if it were told what a row's was."""
    options = TrainingOptions(
        row["source"], epochs=row["options"]["epochs"], precision=row["precision"]
    )
    return as_told(RUNS[name], options, row["seed"])


def with_a_part(config: Row) -> Row:
    """A configuration without the choices that have no part in it, those of no InfoMax term."""
    if config["epochs"] and any(config[weight] for weight in ("alpha", "beta", "kappa")):
        return config
    return {key: of for key, of in config.items() if key not in ("objective", "negatives")}


def whole(rows: list[Row]) -> str:
    """The table of every run on each of the sources, whether there are rows of it or not.

    Raises:
        ValueError: If a run is there twice, is configured otherwise today, or has seeds that were
            probed for different epochs.
    """
    seen = set()
    probed: dict[tuple[str, str, int], int] = {}
    for row in rows:
        one = row["run"], row["seed"], row["source"], row["epochs"]
        expected_config = recorded(today(row["run"], row), row["config"]["image_size"])
        if one in seen or with_a_part(row["config"]) != with_a_part(expected_config):
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
    print(whole(known_rows(path)))


if __name__ == "__main__":
    with one_line_refusals():
        tyro.cli(main, args=sys.argv[1:])
