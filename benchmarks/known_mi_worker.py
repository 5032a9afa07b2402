"""The part of `known_mi.py` that runs in a process, and for a peer in an environment, of its own.

A worker script has a table of methods, each of them a function of x, y and a seed, and ends in
`serve(table)`. It needs nothing but Python and NumPy, so that it runs beside any peer's old pins.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# x and y: float64, shape [n, d]. Returns nats, or an object with `value` and `standard_error`.
Method = Callable[[np.ndarray, np.ndarray, int], Any]


def serve(methods: Mapping[str, Method]) -> None:
    """Run the methods named on the command line on one file of samples.

    One line of JSON for each goes to standard output as soon as it is there, so that whoever reads
    loses at most one estimate to a kill. What fails says why, and the next one runs.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", help="an .npz file of x and y")
    parser.add_argument("seed", type=int)
    parser.add_argument("methods", nargs="+", choices=list(methods))
    arguments = parser.parse_args()
    with np.load(arguments.samples) as samples:
        x, y = samples["x"], samples["y"]
    for name in arguments.methods:
        start, cpu = time.perf_counter(), time.process_time()
        answer: dict[str, Any] = {"method": name, "estimate": None}
        # Peers print: that belongs into the log.
        with contextlib.redirect_stdout(sys.stderr):
            try:
                answer |= _as_nats(methods[name](x, y, arguments.seed))
            except Exception as error:
                answer["failed"] = f"{type(error).__name__}: {error}"
        # The first is what a user waits; the second does not mind who else uses the machine.
        answer["seconds"] = round(time.perf_counter() - start, 3)
        answer["cpu_seconds"] = round(time.process_time() - cpu, 3)
        print(json.dumps(answer, allow_nan=False), flush=True)


def _as_nats(result: Any) -> dict[str, Any]:
    """An estimate as JSON knows it; NaN and infinities are failures."""
    estimate = float(getattr(result, "value", result))
    if not np.isfinite(estimate):
        return {"failed": f"estimate: {estimate}"}
    error = getattr(result, "standard_error", None)
    return {"estimate": estimate} | ({} if error is None else {"standard_error": float(error)})
