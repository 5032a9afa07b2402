"""Several runs in one table: configurations side by side, each by the mean over its seeds."""

import json
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dim.checkpoint import RunError, write_text
from dim.config import PRESETS, TrainConfig
from dim.measures import Measure
from dim.page import write_page
from dim.report import PROTOCOL, ProbeRow, table


@dataclass(frozen=True)
class Evaluated:
    """A run and what was measured of it.

    Attributes:
        run: Its folder.
        group: Its name in the tables, from `group_names`.
        config: Its configuration.
        images: What its probes saw, in words.
        fingerprint: The same for the same images.
        rows: Of its encoder, of the same untrained, and of pixels; empty without labels.
        measures: Of its code.
    """

    run: Path
    group: str
    config: TrainConfig
    images: str
    fingerprint: str
    rows: Sequence[ProbeRow]
    measures: Sequence[Measure]


def group_names(runs: Sequence[Path], configs: Sequence[TrainConfig]) -> list[str]:
    """The group of each run: those of one configuration but for the seed have one name.

    It says all in which the groups differ; where presets do, it leaves out what they imply. A group
    that is alone has its preset's.

    Raises:
        RunError: If two runs of a group have one seed, too: their spread would be none of seeds.
    """
    differing = [
        field.name
        for field in fields(TrainConfig)
        if field.name != "seed" and len({getattr(config, field.name) for config in configs}) > 1
    ]

    def name_of(config: TrainConfig) -> str:
        told = differing
        if "preset" in differing:
            preset = PRESETS[config.preset]
            others = [n for n in differing if getattr(config, n) != getattr(preset, n)]
            told = ["preset", *(name for name in others if name != "preset")]
        return ", ".join(f"{name}={getattr(config, name)}" for name in told) or config.preset

    names = list(map(name_of, configs))
    seen: dict[tuple[str, int], Path] = {}
    for run, config, name in zip(runs, configs, names, strict=True):
        if first := seen.get((name, config.seed)):
            raise RunError(
                f"seed: expected another one in each run of {name}, received {config.seed} in "
                f"{first} and in {run}; leave one out"
            )
        seen[name, config.seed] = run
    return names


def write_comparison(folder: Path, runs: Sequence[Evaluated], *, other: str = "") -> Path:
    """Write ``comparison.md``, the same as a page, and ``comparison.json`` into a folder.

    Args:
        folder: Where to.
        runs: Of the same images, but for what the seed held out of them.
        other: Of other images than the runs': ``comparison-OTHER.md``, and so on.

    Returns:
        The Markdown file.

    Raises:
        RunError: If the system refuses to write.
    """
    groups: dict[str, list[Evaluated]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    joint, measured = _joint_rows(runs), _joint_measures(groups)
    text = "\n".join([*_heading(groups), *_probes(joint), *_code(measured, groups)]) + "\n"
    content = json.dumps(_content(runs, groups, joint, measured), indent=2) + "\n"
    path = folder / (f"comparison-{other}.md" if other else "comparison.md")
    write_text(path.with_suffix(".json"), content)
    write_text(path, text)
    write_page(path)
    return path


Key = tuple[str, str, str]  # the run's name in the table, representation, encoder


def _joint_rows(runs: Sequence[Evaluated]) -> dict[Key, list[ProbeRow]]:
    """What each line of the table is a mean of: no untrained encoder and no images twice."""
    found: dict[Key, dict[Hashable, ProbeRow]] = {}
    for encoder in ("trained", "untrained", "none"):
        for run in runs:
            config, once = run.config, (run.config.seed, run.fingerprint)
            line, one = {
                "trained": (run.group, once),
                "untrained": (f"{config.encoder}, z_dim={config.z_dim}", once),
                "none": ("", run.fingerprint),
            }[encoder]
            for row in run.rows:
                if row.encoder == encoder:
                    found.setdefault((line, row.layer, encoder), {})[one] = row
    return {key: list(rows.values()) for key, rows in found.items()}


def _joint_measures(
    groups: dict[str, list[Evaluated]],
) -> dict[str, dict[str, list[Measure]]]:
    """The values of all seeds, by measure and group; not all apply to each."""
    found: dict[str, dict[str, list[Measure]]] = {}
    for group, members in groups.items():
        for each in members:
            for measure in each.measures:
                found.setdefault(measure.name, {}).setdefault(group, []).append(measure)
    return found


def _content(
    runs: Sequence[Evaluated],
    groups: dict[str, list[Evaluated]],
    joint: dict[Key, list[ProbeRow]],
    measured: dict[str, dict[str, list[Measure]]],
) -> dict[str, Any]:
    """The JSON: all of each run, and what the tables make of it."""
    return {
        "protocol": PROTOCOL,
        "groups": [
            {
                "name": name,
                "seeds": [each.config.seed for each in members],
                "config": {k: v for k, v in asdict(members[0].config).items() if k != "seed"},
            }
            for name, members in groups.items()
        ],
        "rows": [
            {
                "run": name,
                "representation": layer,
                "encoder": encoder,
                "n": len(rows),
                "dimensions": rows[0].dimensions,
                "accuracy": {
                    probe: _over([row.accuracy[probe] for row in rows])
                    for probe in rows[0].accuracy
                },
            }
            for (name, layer, encoder), rows in joint.items()
        ],
        "measures": [
            {"measure": name, "run": group, "n": len(of), "note": of[0].note}
            | _over([measure.value for measure in of])
            for name, of_groups in measured.items()
            for group, of in of_groups.items()
        ],
        "runs": [
            {
                "run": str(each.run),
                "group": each.group,
                "seed": each.config.seed,
                "images": each.images,
                "rows": [asdict(row) for row in each.rows],
                "measures": [asdict(measure) for measure in each.measures],
            }
            for each in runs
        ],
    }


def _over(values: Sequence[float]) -> dict[str, float | None]:
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "sd": sd}


def _heading(groups: dict[str, list[Evaluated]]) -> list[str]:
    runs = [each for members in groups.values() for each in members]
    lines = [f"# Deep InfoMax: {len(runs)} runs", ""]
    for name, members in groups.items():
        folders = ", ".join(f"{each.run} (seed {each.config.seed})" for each in members)
        lines.append(f"- {name}: {folders}")
    images = dict.fromkeys(each.images for each in runs)
    lines += ["", *(f"- {each}" for each in images), ""]
    if len(images) > 1:
        lines += ["The seed chose the test images, too: each run has its own.", ""]
    return lines


def _probes(joint: dict[Key, list[ProbeRow]]) -> list[str]:
    if not joint:
        return ["no labels: probes not run", ""]
    probes = list(next(iter(joint.values()))[0].accuracy)

    def cell(rows: Sequence[ProbeRow], probe: str) -> str:
        if len(rows) == 1:
            return rows[0].percent(probe)
        values = [100 * row.accuracy[probe] for row in rows]
        return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"

    cells = [
        [*key, str(len(rows)), f"{rows[0].dimensions:,}", *(cell(rows, probe) for probe in probes)]
        for key, rows in joint.items()
    ]
    header = ["run", "representation", "encoder", "n", "dimensions", *probes]
    return [
        "## Probes",
        "",
        "Test accuracy in %: mean ± standard deviation of n seeds; where n is 1, ± the accuracy's "
        "binomial standard error.",
        "",
        *table(header, cells, "lllrr" + "r" * len(probes)),
        "",
        PROTOCOL,
        "",
    ]


def _code(
    measured: dict[str, dict[str, list[Measure]]], groups: dict[str, list[Evaluated]]
) -> list[str]:
    def cell(found: Sequence[Measure]) -> str:
        if len(found) < 2:
            return "".join(map(str, found))
        values = [measure.value for measure in found]
        return f"{statistics.mean(values):.3g} ± {statistics.stdev(values):.1g}"

    def note(notes: dict[str, str]) -> str:
        """What all groups have in common, or each its own."""
        first, *others = dict.fromkeys(notes.values())
        return first if not others else "; ".join(f"{group}: {own}" for group, own in notes.items())

    cells = [
        [
            name,
            *(cell(of_groups.get(group, [])) for group in groups),
            note({group: found[0].note for group, found in of_groups.items()}),
        ]
        for name, of_groups in measured.items()
    ]
    header = ["measure, on test images"]
    header += [f"{name} (n = {len(members)})" for name, members in groups.items()] + [""]
    return [
        "## The code",
        "",
        "Mean ± standard deviation of n seeds; where n is 1, the value, ± its standard error if it "
        "is a mean over test images.",
        "",
        *table(header, cells, "l" + "r" * len(groups) + "l"),
    ]
