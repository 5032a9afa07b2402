"""The README's Python runs as it is written."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import dim

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DEEP_INFOMAX = (ROOT / "docs" / "deep_infomax.md").read_text()


def block(containing, page=README):
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (found,) = [code for code in blocks if containing in code]
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


def test_the_files_of_the_results_are_made_of_the_whole_set(tmp_path, monkeypatch):
    def part(n, seed):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=generator)
        return images, torch.randint(0, 10, (n,), generator=generator)

    (x, y), (u, v) = part(6000, 0), part(1500, 1)
    names = tuple("abcdefghij")
    data = dim.ImageData("cifar10", x, y, u, v, names)
    load_data = dim.load_data
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dim, "load_data", {"cifar10": data}.get)
    exec(block("cifar10-small.npz", DEEP_INFOMAX), {})
    whole, small = (load_data(f"{name}.npz") for name in ("cifar10", "cifar10-small"))
    assert whole.classes == small.classes == names
    assert torch.equal(whole.x_train, x)
    assert torch.equal(whole.y_test, v)
    assert small.y_train.bincount().tolist() == [500] * 10
    assert small.y_test.bincount().tolist() == [100] * 10
    third = np.flatnonzero(y == 3)[:500]
    assert torch.equal(small.x_train[small.y_train == 3], x[third])


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
