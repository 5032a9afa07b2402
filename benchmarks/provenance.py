"""What it takes to get a result again: command, options, versions, hardware."""

import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mi_estimators


def results_folder(out: Path | None, *, smoke: bool) -> Path:
    """Where a script writes, made if need be: where it is told, or with the other results.

    A smoke test, whose numbers mean nothing, gets a temporary folder.
    """
    if out is None:
        out = Path(tempfile.mkdtemp()) if smoke else Path(__file__).parent / "results"
    out.mkdir(parents=True, exist_ok=True)
    return out


def _commit() -> str | None:
    """Of this code, marked where other files than results differ; None outside of a repository."""

    def git(*arguments: str) -> str:
        return subprocess.check_output(
            ["git", *arguments], cwd=Path(__file__).parent, stderr=subprocess.DEVNULL, text=True
        ).strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", ":/", ":!results")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return head + "-dirty" * bool(changed)


def provenance(
    script: str, argv: Sequence[str], options: Mapping[str, Any], device: str
) -> dict[str, Any]:
    """The head of every file in `results/`, without a path or a name of the machine."""
    try:
        info = Path("/proc/cpuinfo").read_text()
        cpu = next(line.split(":")[1].strip() for line in info.splitlines() if "model name" in line)
    except (OSError, StopIteration):  # not Linux, or not x86
        cpu = platform.processor() or platform.machine()
    arguments = [Path(a).name if Path(a).is_absolute() else a for a in argv]
    return {
        "command": shlex.join(["python", f"benchmarks/{script}", *arguments]),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "mi_estimators": mi_estimators.__version__,
            "commit": _commit(),
        },
        "hardware": {
            "cpu": cpu,
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        },
        "options": dict(options),
    }


def provenance_of_images(
    script: str, argv: Sequence[str], options: Mapping[str, Any], device: str
) -> dict[str, Any]:
    """As `provenance`, without where images, results and runs lay, which is no part of them."""
    source = Path(options["data"]).name
    settings = {name: value for name, value in options.items() if name not in ("out", "folder")}
    command = [source if argument == options["data"] else argument for argument in argv]
    return provenance(script, command, settings | {"data": source}, device)
