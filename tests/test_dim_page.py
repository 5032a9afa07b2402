"""A report as one page: everything in it, and nothing beside it."""

import base64
import re

import pytest
from PIL import Image

from dim.page import page

REPORT = """# Deep InfoMax on <digits>

## Probes

| layer | 5-NN |
|---|---:|
| z_mean | 97.5 ± 0.8 |

<script>alert(1)</script>

![neighbours](neighbours.png)
"""


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "neighbours.png")
    return tmp_path


def test_tables_headings_and_title_are_there(folder):
    html = page(REPORT, folder)
    assert html.startswith("<!doctype html>")
    assert "<title>Deep InfoMax on &lt;digits&gt;</title>" in html
    assert "<h2>Probes</h2>" in html
    assert '<td style="text-align:right">97.5 ± 0.8</td>' in html


def test_figures_are_inside(folder):
    html = page(REPORT, folder)
    (image,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert base64.b64decode(image) == (folder / "neighbours.png").read_bytes()
    assert 'src="neighbours' not in html


def test_markup_in_the_names_of_data_stays_text(folder):
    assert "<script>" not in page(REPORT, folder)


def test_a_figure_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neighbours\.png"):
        page(REPORT, tmp_path)
