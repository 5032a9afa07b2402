"""Where the methods of `known_mi.py` run: ours here, each peer in an environment made on demand."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import known_mi_ours
import numpy as np

HERE = Path(__file__).parent

# One thread for each process: what differs between methods is not how they share two cores.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "CUDA_VISIBLE_DEVICES": "",
}


@dataclass(frozen=True)
class Package:
    """Methods that run in the same environment, by the same worker script."""

    name: str
    worker: Path
    methods: tuple[str, ...]
    requirements: tuple[str, ...] = ()
    """What pip installs into an environment of its own; none: the one that this script runs in."""


def torch_pin() -> str:
    """The torch that is tested here; another one could bring gigabytes of CUDA."""
    lines = (HERE.parent / "constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith("torch=="))


PACKAGES = (
    Package("mi-estimators", HERE / "known_mi_ours.py", tuple(known_mi_ours.METHODS)),
    Package(
        "benchmark-mi",
        HERE / "known_mi_bmi.py",
        ("bmi-infonce", "bmi-dv", "bmi-nwj", "bmi-mine", "bmi-ksg", "bmi-cca"),
        # The newest jax, jaxlib and scipy that it, of 2024, still runs with.
        ("benchmark-mi==0.1.3", "jax==0.4.30", "jaxlib==0.4.30", "scipy<1.13"),
    ),
    Package(
        "torch-mist",
        HERE / "known_mi_mist.py",
        ("mist-smile", "mist-js", "mist-infonce"),
        # It imports pandas without asking for it.
        ("torch-mist==0.2.17", torch_pin(), "pandas"),
    ),
)
SMOKE = Package("smoke", HERE / "known_mi_ours.py", tuple(known_mi_ours.SMOKE))


class EnvironmentFailed(Exception):
    """A peer's environment could not be made."""


def interpreter(package: Package, cache: Path) -> str:
    """The Python that runs a package's worker; makes its environment if there is none.

    Raises:
        EnvironmentFailed: If pip fails, or there is no network.
    """
    if not package.requirements:
        return sys.executable
    asked = hashlib.sha256("\n".join(package.requirements).encode()).hexdigest()[:8]
    folder = cache / "environments" / f"{package.name}-{asked}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    finished = folder / "installed.txt"
    if not finished.exists():
        print(f"making an environment for {package.name}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)  # half of one, from a run that was killed
        pip = [str(python), "-m", "pip"]
        try:
            for command in (
                [sys.executable, "-m", "venv", str(folder)],
                [*pip, "install", "--quiet", *package.requirements],
            ):
                subprocess.run(command, check=True, capture_output=True, text=True)
            frozen = subprocess.run(
                [*pip, "freeze"], check=True, capture_output=True, text=True
            ).stdout
        except subprocess.CalledProcessError as error:
            raise EnvironmentFailed(f"environment: {_last_line(error.stderr)}") from None
        except OSError as error:
            raise EnvironmentFailed(f"environment: {error}") from None
        finished.write_text(frozen)
    return str(python)


def versions(packages: Sequence[Package], cache: Path) -> dict[str, list[str]]:
    """What pip put into each peer's environment, for the record."""
    found = {}
    for package in packages:
        if package.requirements:
            try:
                installed = Path(interpreter(package, cache)).parent.parent / "installed.txt"
                found[package.name] = installed.read_text().split("\n")[:-1]
            except EnvironmentFailed as error:
                found[package.name] = [f"failed: {error}"]
    return found


def run_worker(
    package: Package,
    python: str,
    methods: Sequence[str],
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    timeout: float,
) -> Iterator[dict[str, Any]]:
    """Run methods on one pair of arrays; yields each one's answer as it comes.

    One process for all of them; where it dies or takes longer than `timeout` seconds for one
    method, that method has failed, and another process does the rest.
    """
    # A temporary folder of its own: torch-mist stores its weights under one fixed name in it.
    with tempfile.TemporaryDirectory() as folder:
        samples, log = Path(folder) / "samples.npz", Path(folder) / "log.txt"
        np.savez(samples, x=x, y=y)
        environment = os.environ | ONE_THREAD | {"TMPDIR": folder}
        pending = list(methods)
        while pending:
            command = [python, str(package.worker), str(samples), str(seed), *pending]
            with log.open("w") as stderr:
                process = subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env=environment,
                    text=True,
                    start_new_session=True,  # Ctrl-C is for this process, and no method's failure
                )
            assert process.stdout is not None
            late = threading.Event()
            try:
                timer = _kill_after(timeout, process, late)
                for line in process.stdout:
                    timer.cancel()
                    answer = json.loads(line)
                    pending.remove(answer["method"])
                    if "failed" in answer:
                        answer["failed"] = _anonymous(" ".join(answer["failed"].split()))
                    yield answer
                    timer = _kill_after(timeout, process, late)
                process.wait()
            finally:  # also when whoever reads this stops in the middle
                timer.cancel()
                process.kill()
                process.wait()
                process.stdout.close()
            if pending:
                why = (
                    f"timeout: more than {timeout:g} seconds"
                    if late.is_set()
                    else f"worker: exit status {process.returncode}: {_last_line(log.read_text())}"
                )
                yield failure(pending.pop(0), why)


def failure(method: str, why: str) -> dict[str, Any]:
    """The answer of a method that gave none."""
    return {"method": method, "estimate": None, "failed": why, "seconds": None}


def _kill_after(
    seconds: float, process: subprocess.Popen[str], late: threading.Event
) -> threading.Timer:
    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    return timer


def _last_line(log: str) -> str:
    return _anonymous((log.strip().splitlines() or ["no message"])[-1])


def _anonymous(message: str) -> str:
    """A message without folders of this machine, and not too long for a table."""
    return re.sub(r"(/[^\s/:'\"]+)+/", "", message)[:300]
