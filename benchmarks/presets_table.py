"""All that a result file of presets.py holds as one table, the README's.

    python benchmarks/presets_table.py benchmarks/results/presets.json

Rows of other configurations than today's are refused.
"""

import sys
from pathlib import Path

import tyro
from presets import RUNS, table
from resumable import Row, TrainingOptions, as_told, changes, known_rows

from dim import TrainConfig
from dim.command import one_line_refusals


def today(name: str, row: Row) -> TrainConfig:
    """The configuration of a run if it were told what a row's was."""
    options = TrainingOptions(
        row["source"], epochs=row["options"]["epochs"], precision=row["precision"]
    )
    return as_told(RUNS[name], options, row["seed"])


def whole(rows: list[Row]) -> str:
    """The table of every run on each of the sources, whether there are rows of it or not.

    Of a run without any, as many epochs are named as of the first row's.

    Raises:
        ValueError: If a run is unknown or there twice, is configured otherwise today, or has seeds
            that were probed for different epochs.
    """
    seen = set()
    first: dict[str, Row] = {}
    probed: dict[tuple[str, str, int], int] = {}
    for row in rows:
        one = row["run"], row["seed"], row["source"], row["epochs"]
        if row["run"] not in RUNS:
            raise ValueError(
                f"{one}: expected one of {', '.join(RUNS)}, received another; move it out of the "
                f"file"
            )
        config = today(row["run"], row)
        if changed := changes(row, config):
            received = ", ".join(f"{name} {value!r}" for name, value in changed.items())
            raise ValueError(
                f"{one}: expected today's configuration, received {received}; move it out of the "
                "file"
            )
        if one in seen:
            raise ValueError(f"{one}: expected one row, received two; move one out of the file")
        seen.add(one)
        first.setdefault(row["source"], row)
        epochs = row["options"]["mlp_epochs"]
        expected = probed.setdefault((row["run"], row["source"], row["epochs"]), epochs)
        if epochs != expected:
            raise ValueError(
                f"{one}: expected {expected} mlp_epochs as in its other seeds, received {epochs}; "
                "probe it again"
            )
    asked = []
    for name in RUNS:
        for source, row in first.items():
            of = {r["epochs"] for r in rows if (r["run"], r["source"]) == (name, source)}
            asked += [(name, source, n) for n in sorted(of or {today(name, row).epochs})]
    return table(rows, asked)


def main(path: tyro.conf.Positional[Path], /) -> None:
    """Print the table of a result file of presets.py."""
    if not path.exists():
        raise ValueError(f"path: expected a result file of presets.py, received {path}, no file")
    print(whole(known_rows(path)))


if __name__ == "__main__":
    with one_line_refusals():
        tyro.cli(main, args=sys.argv[1:])
