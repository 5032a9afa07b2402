"""Image data for Deep InfoMax: by name, from an ``.npz`` file, a folder, or a data set's own files.

Whatever the source, the result is the same: square uint8 RGB images of one size, kept in memory,
with a test part that training never sees. Nothing is normalised: encoders scale pixels themselves.
"""

from dim.data.folder import Corrupt
from dim.data.images import DataError, ImageData
from dim.data.load import load_data

__all__ = ["Corrupt", "DataError", "ImageData", "load_data"]
