"""What was measured of a run, in Markdown, as a page and as JSON."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dim.checkpoint import METRICS, load_metrics, write_text
from dim.data import ImageData
from dim.health import health_table
from dim.measures import Measure
from dim.page import write_page

PROTOCOL = (
    "Frozen encoder in eval mode, no augmentation; probes are fitted on the training images and "
    "scored on the test images. k-NN: cosine similarity, unweighted majority vote. Linear: "
    "multinomial logistic regression on standardised features; SVM: linear, squared hinge, one "
    "class against the rest; the penalty of both chosen on a fifth of the training images. MLP: "
    "200 hidden units, the paper's schedule; mean over the last 100 epochs (of fewer than 200, the "
    "second half). MLP, validated: fitted on nine tenths, the epoch chosen on the tenth. z_mean is "
    "the paper's Y, hidden its fc, z a sample of p(z|x). Pixels: scaled to [-1, 1]."
)


@dataclass(frozen=True)
class ProbeRow:
    """Test accuracies of one representation.

    Attributes:
        layer: One of `Layer`, or "pixels".
        encoder: "trained", "untrained" (the same architecture and initial weights), or "none".
        dimensions: Its size.
        accuracy: By probe: "5-NN", "linear", "SVM", "MLP", "MLP, validated".
        n_test: Test images behind each accuracy.
    """

    layer: str
    encoder: str
    dimensions: int
    accuracy: dict[str, float]
    n_test: int

    def percent(self, probe: str) -> str:
        """An accuracy in %, with its standard error.

        Example:
            >>> ProbeRow("z", "trained", 64, {"linear": 0.36}, n_test=100).percent("linear")
            '36.0 ± 4.8'
        """
        accuracy = self.accuracy[probe]
        return f"{100 * accuracy:.1f} ± {100 * standard_error(accuracy, self.n_test):.1f}"


def standard_error(accuracy: float, n_test: int) -> float:
    """Binomial standard error of an accuracy on n_test independent test points.

    It covers the choice of test images alone, not the choice of training images or of a seed.
    """
    return math.sqrt(accuracy * (1 - accuracy) / n_test)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> list[str]:
    """The lines of a Markdown table, a letter of `align` a column: left or right.

    Example:
        >>> print(*table(["probe", "%"], [["5-NN", "36.0"]], "lr"), sep=chr(10))
        | probe | % |
        |---|---:|
        | 5-NN | 36.0 |
    """
    rule = "".join({"l": "---|", "r": "---:|"}[side] for side in align)
    head, *body = (f"| {' | '.join(cells)} |" for cells in (header, *rows))
    return [head, f"|{rule}", *body]


def size_of(data: ImageData) -> str:
    """How many images there are, and how large."""
    side = data.x_train.shape[-1]
    return (
        f"{len(data.x_train):,} training and {len(data.x_test):,} test images of {side}×{side} "
        f"pixels"
    )


def report(
    data: ImageData,
    rows: Sequence[ProbeRow],
    measures: Sequence[Measure] = (),
    *,
    health: Mapping[str, float] | None = None,
    figures: Sequence[str] = (),
) -> str:
    """The probe table and what it was measured on, in Markdown.

    Args:
        data: What the encoder was trained and probed on.
        rows: From `probe_table`; empty without labels.
        measures: From `measures_of`; none are shown without.
        health: The last row of the metrics of training; none is shown without.
        figures: Image files, relative to the report, to show below the table.
    """
    lines = [f"# Deep InfoMax on {data.name}", "", f"{size_of(data)}.", "", "## Probes", ""]
    if rows:
        probes = list(rows[0].accuracy)
        cells = [
            [row.layer, row.encoder, f"{row.dimensions:,}", *map(row.percent, probes)]
            for row in rows
        ]
        header = ["representation", "encoder", "dimensions", *probes]
        lines += ["Test accuracy in %, ± its binomial standard error.", ""]
        lines += [*table(header, cells, "llr" + "r" * len(probes)), "", PROTOCOL]
    else:
        lines.append("no labels: probes not run")
    if measures:
        values = [[m.name, str(m), m.note] for m in measures]
        lines += ["", "## The code", ""]
        lines += table(["measure, on test images", "value", ""], values, "lrl")
    if health:
        lines += ["", "## The last batch of training", "", health_table(health)]
    for figure in figures:
        lines += ["", f"![{Path(figure).stem}]({figure})"]
    return "\n".join(lines) + "\n"


def write_report(
    run: Path,
    rows: Sequence[ProbeRow],
    data: ImageData,
    measures: Sequence[Measure] = (),
    *,
    other: str = "",
) -> str:
    """Write ``report.md``, the same as a page, and ``probes.json`` into a run's folder.

    Those of other images than the run's do not replace its own: ``report-OTHER.md``, and so on.
    The run's figures and health are not of them, so they are left out there.

    Returns:
        The report.

    Raises:
        RunError: If the system refuses to write.
    """
    known = ("neighbours.png", "reconstructions.png", "classes.png", "curves.png")
    figures = [name for name in known if (run / name).exists() and not other]
    of_other = f"-{other}" if other else ""
    metrics = load_metrics(run) if (run / METRICS).exists() and not other else []
    health = metrics[-1] if metrics else None
    text = report(data, rows, measures, health=health, figures=figures)
    found = {
        "data": data.name,
        "protocol": PROTOCOL,
        "rows": [asdict(row) for row in rows],
        "measures": [asdict(measure) for measure in measures],
    }
    write_text(run / f"probes{of_other}.json", json.dumps(found, indent=2) + "\n")
    write_text(run / f"report{of_other}.md", text)
    write_page(run / f"report{of_other}.md")
    return text
