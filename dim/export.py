"""An encoder as a file that runs without this package.

``python -m dim.export RUN --out encoder.pt2`` writes a program of ``torch.export``, for which torch
is enough; ``--out encoder.onnx`` an ONNX model. Both take a batch of bytes, ``images`` of shape
N×3×s×s with the s of the run and any N, and give one tensor: ``z_mean``, or the layer asked for.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from dim.checkpoint import load_config, load_encoder, write_atomically
from dim.command import Run, one_line_refusals
from dim.encoder import Encoder, FixedLayer
from dim.extras import require_packages


class LayerOf(nn.Module):
    """One layer of an encoder, as a module: a tensor to a tensor.

    Args:
        encoder: Images to `Features`.
        layer: Which of them.
    """

    def __init__(self, encoder: Encoder, layer: FixedLayer) -> None:
        super().__init__()
        self.encoder = encoder
        self.layer = layer

    def forward(self, images: UInt8[Tensor, "N 3 h w"]) -> Float[Tensor, "N ..."]:
        """Encode."""
        return getattr(self.encoder(images), self.layer)


def export_encoder(
    out: Path, encoder: Encoder, image_size: int, *, layer: FixedLayer = "z_mean"
) -> None:
    """Write an encoder as it is in eval mode, whole or not at all.

    Args:
        out: A file that ends in ``.pt2`` or ``.onnx``.
        encoder: Stays as it is.
        image_size: Side of the images that it takes, in pixels.
        layer: Which of its `Features` the file gives.

    Raises:
        ValueError: If `out` ends in something else.
        ModuleNotFoundError: If onnx or onnxscript is absent, for ``.onnx``.
    """
    if out.suffix not in (".pt2", ".onnx"):
        raise ValueError(
            f"out: expected a file that ends in .pt2 or .onnx, received {out}; rename it"
        )
    if out.suffix == ".onnx":
        require_packages(
            "onnx",
            "onnxscript",
            argument="out",
            purpose=f"for {out}",
            extra="onnx",
            otherwise="choose a .pt2 file",
        )
    write = _write_pt2 if out.suffix == ".pt2" else _write_onnx
    # Without gradients, so that what loads the file may call .numpy() on what comes out.
    module = LayerOf(deepcopy(encoder), layer).cpu().eval().requires_grad_(False)
    # Two, for a batch of one might be taken for a constant.
    images = torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8)
    write_atomically(out, lambda path: write(path, module, images))


def _write_pt2(path: Path, module: LayerOf, images: UInt8[Tensor, "N 3 s s"]) -> None:
    shapes = {"images": {0: torch.export.Dim("N")}}
    program = torch.export.export(module, (images,), dynamic_shapes=shapes)
    with path.open("wb") as file:
        torch.export.save(program, file)


def _write_onnx(path: Path, module: LayerOf, images: UInt8[Tensor, "N 3 s s"]) -> None:
    torch.onnx.export(
        module,
        (images,),
        path,
        dynamo=True,
        input_names=["images"],
        output_names=[module.layer],
        dynamic_shapes={"images": {0: "N"}},
        external_data=False,  # in one file, which is written whole or not at all
        verbose=False,
    )


# --- Command line -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """Write the encoder of a run as a file that runs without this package."""

    run: Run
    """Folder of a run of `python -m dim.train`."""
    out: Path
    """File to write, .pt2 or .onnx."""
    layer: FixedLayer = "z_mean"
    """What the file computes of bytes of shape N×3×s×s; feature maps keep their shape."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; a user's mistake exits with code 2 and one line."""
    with one_line_refusals():
        options = tyro.cli(Options, prog="python -m dim.export", args=argv)
        encoder = load_encoder(options.run)
        side = load_config(options.run).image_size
        assert side is not None  # or load_encoder had refused the run
        export_encoder(options.out, encoder, side, layer=options.layer)
        print(f"written: {options.out}, bytes of N×3×{side}×{side} to {options.layer}")


if __name__ == "__main__":
    main()
