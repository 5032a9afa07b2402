"""Training's metrics in TensorBoard, beside `metrics.csv`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dim.extras import require_packages

Row = Mapping[str, float | int]
BOARD = "tensorboard"


def require_tensorboard() -> None:
    """Refuse (ModuleNotFoundError) to go without the package, before anything is computed."""
    require_packages(
        "tensorboard",
        argument="tensorboard",
        purpose="for its files",
        extra="tensorboard",
        otherwise="leave --tensorboard out",
    )


@contextmanager
def board(run: Path, history: Sequence[Row]) -> Iterator[Callable[[Row], None]]:
    """Open the board of a run, in its folder `tensorboard`; what it yields writes a row.

    A column is a scalar of its own name, an epoch a step. What earlier lives of the run wrote is
    declared void and written anew, so that no epoch shows twice, and none is missing that was
    trained without a board.

    Args:
        run: Its folder.
        history: Rows of the epochs that are finished.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(run / BOARD, purge_step=1) as writer:

        def write(row: Row) -> None:
            for name in row.keys() - {"epoch"}:
                writer.add_scalar(name, row[name], row["epoch"])
            writer.flush()

        for row in history:
            write(row)
        yield write
