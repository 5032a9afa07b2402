"""The README's Python runs as it is written."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def block(containing):
    (found,) = [code for code in BLOCKS if containing in code]
    return found


@pytest.mark.slow
def test_the_first_lines_estimate_and_print_what_they_say(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block("result = estimate_mi(x, y)"), names)
    assert abs(names["result"].value - 0.693) < 0.05
    printed = capsys.readouterr().out.strip()
    assert re.sub(r"\d\.\d+", "#", printed) in re.sub(r"\d\.\d+", "#", README)


def test_the_term_for_a_training_loop_trains():
    f, g = torch.nn.Linear(3, 8), torch.nn.Linear(2, 8)
    names = {"f": f, "g": g, "x": torch.randn(16, 3), "z": torch.randn(16, 2)}
    exec("from mi_estimators import MIEstimator, Separable\n" + block("loss(x, z)"), names)
    names["loss"].backward()
    assert list(names["mutual_information"].parameters())
    assert f.weight.grad is not None


def test_the_plug_in_passes_its_check():
    exec(block("class Jeffreys"), {})


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name
)
def test_every_file_and_heading_that_a_page_links_is_there(page):
    links = re.findall(r"\]\((?!https?:)([^)]*)\)", page.read_text())
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in slugs, link
