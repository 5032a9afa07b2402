"""Write down what an encoder makes of images.

``python -m dim.embed RUN --out embeddings.npy`` writes a row an image, of the training part and
then of the test part, and ``embeddings.csv`` beside it, which says of each row which file, part and
class it is of. ``--out embeddings.parquet`` writes one table of both.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from tqdm import tqdm

from dim.checkpoint import load_encoder, write_atomically
from dim.command import Device, Run, images_of_run, one_line_refusals, resolve_device
from dim.data import Corrupt, ImageData
from dim.encoder import FixedLayer, encode
from dim.extras import require_packages

BATCH = 500


@dataclass(frozen=True)
class Row:
    """What one embedding is of.

    Attributes:
        file: Path of the image in its folder, or its row in an array that a test part is held out
            of; None where the source is in its own order.
        split: "train" or "test".
        label: Class number, or None.
    """

    file: str | None
    split: str
    label: int | None


def rows(data: ImageData) -> list[Row]:
    """A row an image: the training part, then the test part."""
    parts = (
        ("train", len(data.x_train), data.files_train, data.y_train),
        ("test", len(data.x_test), data.files_test, data.y_test),
    )
    return [
        Row(file, split, label)
        for split, count, files, labels in parts
        for file, label in zip(
            files or [None] * count,
            [None] * count if labels is None else labels.tolist(),
            strict=True,
        )
    ]


def embed(
    encoder: nn.Module, images: UInt8[Tensor, "N 3 h w"], layer: FixedLayer
) -> Iterator[Float[Tensor, "B d"]]:
    """One layer's values, a batch at a time; feature maps are flattened, channel by channel."""
    for batch in tqdm(images.split(BATCH), desc=layer, disable=None, leave=False, unit="batch"):
        yield encode(encoder, batch, layer).flatten(1).cpu()


def write_embeddings(
    out: Path, encoder: nn.Module, data: ImageData, *, layer: FixedLayer = "z_mean"
) -> tuple[int, int]:
    """Write the embeddings of all images, whole or not at all.

    A batch is in memory at a time: feature maps may outgrow it.

    Args:
        out: An ``.npy`` file, which gets a ``.csv`` of `Row` beside it, or a ``.parquet`` file.
        encoder: Maps uint8 images to `Features`.
        data: The images.
        layer: Which of the encoder's `Features`.

    Returns:
        How many embeddings of how many dimensions.

    Raises:
        ValueError: If `out` ends in something else.
        ModuleNotFoundError: If pyarrow is absent, for ``.parquet``.
    """
    require_format(out)
    write = _write_npy if out.suffix == ".npy" else _write_parquet
    index = rows(data)
    dimensions = next(embed(encoder, data.x_test[:1], layer)).shape[1]
    batches = chain(embed(encoder, data.x_train, layer), embed(encoder, data.x_test, layer))
    write(out, index, dimensions, batches)
    return len(index), dimensions


def require_format(out: Path) -> None:
    """Refuse a file that could not be written, before anything is computed."""
    if out.suffix not in (".npy", ".parquet"):
        raise ValueError(
            f"out: expected a file that ends in .npy or .parquet, received {out}; rename it"
        )
    if out.suffix == ".parquet":
        require_packages(
            "pyarrow", argument="out", purpose=f"for {out}", otherwise="choose an .npy file"
        )


def _write_npy(
    out: Path, index: Sequence[Row], dimensions: int, batches: Iterator[Float[Tensor, "B d"]]
) -> None:
    def write_table(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(map(asdict, index))

    def write_both(path: Path) -> None:
        kind, shape = np.dtype(np.float32).str, (len(index), dimensions)
        header = {"descr": kind, "fortran_order": False, "shape": shape}
        with path.open("wb") as file:  # not mapped: on a full disk that kills the process
            np.lib.format.write_array_header_1_0(file, header)
            for batch in batches:
                file.write(batch.numpy().tobytes())
        # In here, so that both files take their places at almost the same moment.
        write_atomically(out.with_suffix(".csv"), write_table)

    write_atomically(out, write_both)


def _write_parquet(
    out: Path, index: Sequence[Row], dimensions: int, batches: Iterator[Float[Tensor, "B d"]]
) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    about = pa.schema({"file": pa.string(), "split": pa.string(), "label": pa.int64()})
    embedding = pa.field("embedding", pa.list_(pa.float32(), dimensions))

    def write(path: Path) -> None:
        start = 0
        with ParquetWriter(path, about.append(embedding)) as writer:
            for batch in batches:
                rows = [asdict(row) for row in index[start : start + len(batch)]]
                values = pa.array(batch.flatten().numpy())
                lists = pa.FixedSizeListArray.from_arrays(values, dimensions)
                writer.write_table(
                    pa.Table.from_pylist(rows, about).append_column(embedding, lists)
                )
                start += len(batch)

    write_atomically(out, write)


# --- Command line -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """Write the embeddings of a run's images, or of others."""

    run: Run
    """Folder of a run of `python -m dim.train`."""
    out: Path
    """File to write, .npy (and a .csv beside it) or .parquet."""
    data: str | None = None
    """Other images than the run's, as for training; resized to the run's size."""
    layer: FixedLayer = "z_mean"
    """What to write of the encoder; feature maps are flattened."""
    corrupt: Corrupt | None = None
    """What to do with a file of a folder that is no readable image; by default as in training."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA where there is a device."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; a user's mistake exits with code 2 and one line."""
    with one_line_refusals():
        options = tyro.cli(Options, prog="python -m dim.embed", args=argv)
        require_format(options.out)
        device = resolve_device(options.device)
        encoder = load_encoder(options.run).to(device)
        data = images_of_run(options.run, options.data, corrupt=options.corrupt)
        count, dimensions = write_embeddings(options.out, encoder, data, layer=options.layer)
        print(f"written: {options.out}, {count:,} × {dimensions:,}, {options.layer} of {data.name}")


if __name__ == "__main__":
    main()
