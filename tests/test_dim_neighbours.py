"""The figure: the right images, in their own colours, beside numbers over the whole test set."""

import base64
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import nn

import dim.command
import dim.neighbours
from dim.data import ImageData
from dim.encoder import Features
from dim.measures import Codes
from dim.neighbours import (
    BETWEEN,
    BOTTOM,
    FRAME,
    GAP,
    IMAGE,
    LEFT,
    LINE,
    OTHER,
    SAME,
    TEXT,
    TOP,
    WHITE,
    Retrieval,
    draw_neighbours,
    draw_side_by_side,
    main,
)

CELL = IMAGE + 2 * (FRAME + GAP)


@pytest.fixture
def data():
    """Each image in one colour of its own, so that the figure tells which it is."""
    generator = torch.Generator().manual_seed(0)

    def part(n):
        colours = torch.randint(0, 256, (n, 3, 1, 1), generator=generator, dtype=torch.uint8)
        return colours.repeat(1, 1, 8, 8), torch.randint(0, 3, (n,), generator=generator)

    return ImageData("colours", *part(40), *part(15), ("a", "b", "a very long class name"))


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(n, 4, generator=generator) for n in (15, 40))


def panel(path, metric, columns=10, below=BOTTOM):
    """The file's pixels of one panel, by its metric or its number."""
    picture = np.asarray(Image.open(path).convert("RGB"))[TOP:-below]
    width = columns * CELL + 4 * GAP
    number = {"cosine": 0, "l2": 1}.get(metric, metric)
    return picture[:, LEFT + number * (width + BETWEEN) :][:, :width]


def centre(picture, row, column):
    x = column * CELL + CELL // 2 + (4 * GAP if column else 0)
    return tuple(int(c) for c in picture[row * CELL + CELL // 2, x])


def frame(picture, row, column):
    x = column * CELL + GAP + FRAME // 2 + (4 * GAP if column else 0)
    return tuple(int(c) for c in picture[row * CELL + CELL // 2, x])


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_every_cell_shows_its_image_and_frame(tmp_path, features, data, metric):
    test, train = features
    path = tmp_path / "neighbours.png"
    draw_neighbours(test, train, data, path=path, seed=5)
    queries = torch.randperm(15, generator=torch.Generator().manual_seed(5))[:10]
    picture = panel(path, metric)
    assert picture.shape[0] == 10 * CELL
    for row, query in enumerate(queries.tolist()):
        assert centre(picture, row, 0) == tuple(data.x_test[query, :, 0, 0].tolist())
        assert frame(picture, row, 0) == WHITE
        if metric == "l2":
            distance = (train - test[query]).norm(dim=1)
        else:
            distance = -torch.cosine_similarity(train, test[query][None])
        for column, found in enumerate(distance.argsort()[:9].tolist(), start=1):
            assert centre(picture, row, column) == tuple(data.x_train[found, :, 0, 0].tolist())
            agrees = data.y_train[found] == data.y_test[query]
            assert frame(picture, row, column) == (SAME if agrees else OTHER)


def test_the_figure_follows_the_numbers_of_queries_and_of_neighbours(
    tmp_path, features, data, monkeypatch
):
    below: list[str] = []
    monkeypatch.setattr(Axes, "set_xlabel", lambda axes, text, **style: below.append(text))
    test, train = features
    path = tmp_path / "n.png"
    precision = draw_neighbours(
        test, train, data, path=path, retrieval=Retrieval(queries=4, k=7), seed=5
    )
    nearest = torch.cdist(test, train).argsort(1)[:, :7]
    agree = data.y_train[nearest] == data.y_test[:, None]
    assert precision["l2"] == pytest.approx(agree.float().mean().item())
    assert below[1] == f"precision@7 over all 15 test images: {100 * precision['l2']:.1f} %"
    height, width = np.asarray(Image.open(path)).shape[:2]
    assert height == TOP + 4 * CELL + BOTTOM
    assert width == LEFT + 2 * (8 * CELL + 4 * GAP + BETWEEN)
    picture = panel(path, "l2", columns=8)
    queries = torch.randperm(15, generator=torch.Generator().manual_seed(5))[:4]
    for row, query in enumerate(queries.tolist()):
        assert centre(picture, row, 0) == tuple(data.x_test[query, :, 0, 0].tolist())
        for column, found in enumerate(nearest[query].tolist(), start=1):
            assert centre(picture, row, column) == tuple(data.x_train[found, :, 0, 0].tolist())
    codes = {"one": Codes(train, test)}
    draw_side_by_side(codes, data, path=path, retrieval=Retrieval(queries=4, k=7), seed=5)
    alone = tmp_path / "alone.png"
    draw_neighbours(test, train, data, path=alone, retrieval=Retrieval(queries=4, k=7), seed=5)
    np.testing.assert_array_equal(
        panel(path, 0, columns=8, below=BOTTOM + LINE), panel(alone, "cosine", columns=8)
    )


@pytest.mark.parametrize("panels", [1, 3])
def test_words_have_room_beside_few_neighbours(tmp_path, features, data, panels):
    path = tmp_path / "n.png"
    codes = {
        f"{number}: a title of some length": Codes(*features[::-1]) for number in range(panels)
    }
    draw_side_by_side(codes, data, path=path, retrieval=Retrieval(1, 1, "feature_map"))
    picture = np.asarray(Image.open(path).convert("L"))
    edges = [picture[:, :4], picture[:, -4:], picture[:4], picture[-4:]]
    assert all((edge == 255).all() for edge in edges)
    between = [LEFT + number * (TEXT + BETWEEN) - BETWEEN // 2 for number in range(1, panels)]
    assert all((picture[: TOP + CELL + 40, x] == 255).all() for x in between)


def test_the_caption_names_a_layer_that_is_not_the_code(tmp_path, features, data):
    drawn = {}
    for layer in ("z_mean", "conv", "hidden"):
        draw_neighbours(*features, data, path=tmp_path / layer, retrieval=Retrieval(layer=layer))
        drawn[layer] = np.asarray(Image.open(tmp_path / layer))
    for layer in ("conv", "hidden"):
        different = (drawn[layer] != drawn["z_mean"]).any(-1).any(-1)
        assert different.any()
        assert not different[:-BOTTOM].any()
    assert (drawn["conv"] != drawn["hidden"]).any()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"queries": 0}, "queries: expected at least 1, received 0"),
        ({"k": 0}, "k: expected 1 to 40, the number of training images, received 0"),
        ({"k": 41}, "k: expected 1 to 40, the number of training images, received 41"),
    ],
)
def test_numbers_that_cannot_be_drawn_are_refused(tmp_path, features, data, numbers, message):
    path, retrieval = tmp_path / "n.png", Retrieval(**numbers)
    with pytest.raises(ValueError, match=message):
        draw_neighbours(*features, data, path=path, retrieval=retrieval)
    with pytest.raises(ValueError, match=message):
        draw_side_by_side({"one": Codes(*features[::-1])}, data, path=path, retrieval=retrieval)
    assert not list(tmp_path.iterdir())


def test_a_figure_that_is_too_large_to_draw_is_refused(tmp_path, features, data):
    many = torch.arange(600) % 15
    data = replace(data, x_test=data.x_test[many], y_test=data.y_test[many])
    path, retrieval = tmp_path / "n.png", Retrieval(queries=600)
    with pytest.raises(ValueError, match="queries, k: expected a figure of less than 65,536 pix"):
        draw_neighbours(features[0][many], features[1], data, path=path, retrieval=retrieval)


def test_names_of_classes_are_not_cut_by_the_edge(tmp_path, features, data):
    classes = ("American alligator", "potter's wheel", "MGM building")
    path = tmp_path / "n.png"
    draw_neighbours(*features, replace(data, classes=classes), path=path)
    margin = np.asarray(Image.open(path).convert("L"))[TOP:-BOTTOM, :LEFT]
    assert (margin < 128).any()
    assert (margin[:, 0] == 255).all()


def test_pixels_are_enlarged_without_blur(tmp_path, features, data):
    stripes = data.x_test.clone()
    stripes[..., ::2] = 0
    stripes[..., 1::2] = 255
    path = tmp_path / "neighbours.png"
    draw_neighbours(*features, replace(data, x_test=stripes), path=path)
    row = panel(path, "cosine")[CELL // 2, GAP + FRAME : GAP + FRAME + IMAGE, 0]
    np.testing.assert_array_equal(row, np.repeat([0, 255] * 4, IMAGE // 8))


def test_precision_is_over_the_whole_test_set(tmp_path, features, data):
    test, train = features
    precision = draw_neighbours(test, train, data, path=tmp_path / "n.png")
    agree = 0
    for x, y in zip(test, data.y_test, strict=True):
        nine = (train - x).norm(dim=1).argsort()[:9]
        agree += sum(int(data.y_train[i] == y) for i in nine)
    assert precision["l2"] == pytest.approx(agree / (9 * 15))
    assert set(precision) == {"cosine", "l2"}


def test_perfect_features_have_precision_one(tmp_path, data):
    one_hot = [torch.eye(3)[y] for y in (data.y_test, data.y_train)]
    assert draw_neighbours(*one_hot, data, path=tmp_path / "n.png") == {"cosine": 1, "l2": 1}


def test_without_labels_there_are_no_frames(tmp_path, features, data):
    path = tmp_path / "n.png"
    unlabelled = replace(data, y_train=None, y_test=None, classes=None)
    assert draw_neighbours(*features, unlabelled, path=path) == {}
    picture = panel(path, "l2")
    assert all(frame(picture, r, c) == WHITE for r in range(10) for c in range(10))


def test_the_seed_chooses_the_queries(tmp_path, features, data):
    drawn = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        draw_neighbours(*features, data, path=tmp_path / name, seed=seed)
        drawn[name] = (tmp_path / name).read_bytes()
    assert drawn["first"] == drawn["again"] != drawn["other"]


@pytest.mark.parametrize(("test_images", "side"), [(3, 8), (15, 200)])
def test_few_queries_and_large_images_are_drawn(tmp_path, features, data, test_images, side):
    test, train = features
    data = replace(
        data,
        x_test=data.x_test[:test_images, :, :1, :1].repeat(1, 1, side, side),
        y_test=data.y_test[:test_images],
        x_train=data.x_train[..., :1, :1].repeat(1, 1, side, side),
    )
    path = tmp_path / "n.png"
    draw_neighbours(test[:test_images], train, data, path=path)
    assert panel(path, "cosine").shape[0] == min(test_images, 10) * CELL


def test_codes_are_drawn_side_by_side_with_the_same_queries(tmp_path, features, data):
    random, labels = Codes(*features[::-1]), (data.y_train, data.y_test)
    perfect = Codes(*(torch.eye(3)[y] for y in labels))
    path = tmp_path / "n.png"
    precision = draw_side_by_side(
        {"random": random, "perfect": perfect, "again": random}, data, path=path, seed=5
    )
    alone = draw_neighbours(*features, data, path=tmp_path / "alone.png", seed=5)
    assert precision == {"random": alone["cosine"], "perfect": 1, "again": alone["cosine"]}
    np.testing.assert_array_equal(panel(path, 0), panel(tmp_path / "alone.png", "cosine"))
    np.testing.assert_array_equal(panel(path, 0), panel(path, 2))
    for row in range(10):
        assert centre(panel(path, 1), row, 0) == centre(panel(path, 0), row, 0)
        assert all(frame(panel(path, 1), row, column) == SAME for column in range(1, 10))


def test_each_panel_has_its_name_above_and_its_precision_below(tmp_path, features, data):
    codes = Codes(*features[::-1])
    path = tmp_path / "n.png"
    for titles in (["first", "second"], ["first", "other"]):
        draw_side_by_side(dict.fromkeys(titles, codes), data, path=path)
        path = path.with_suffix(".other.png")
    first, other = (
        np.asarray(Image.open(tmp_path / name).convert("L")) for name in ("n.png", "n.other.png")
    )
    half = LEFT + 10 * CELL + 4 * GAP + BETWEEN
    assert (first[:TOP, :half] < 128).any()
    assert (first[:TOP, half:] != other[:TOP, half:]).any()
    below = first[-BOTTOM : -BOTTOM // 2]
    assert (below[:, :half] < 128).any()
    assert (below[:, half:] < 128).any()


# --- Command line -----------------------------------------------------------------------------


class Colour(nn.Module):
    """Encodes an image by its colour."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        colour = self.scale * images[:, :, 0, 0] / 255
        other = torch.ones_like(colour)
        conv = (colour**2)[:, :, None, None].expand(-1, -1, 2, 2)
        return Features(conv, conv, other, z_mean=colour, z_log_var=other)


@pytest.fixture
def run(tmp_path, monkeypatch, data):
    def config(run):
        other = run.name == "grey"
        return SimpleNamespace(
            data="grey" if other else "colours", image_size=None, corrupt="refuse", seed=3
        )

    for module in (dim.command, dim.neighbours):
        monkeypatch.setattr(module, "load_config", config)
    monkeypatch.setattr(dim.neighbours, "load_encoder", lambda run: Colour())
    monkeypatch.setattr(dim.neighbours, "images_of_run", lambda run: data)
    monkeypatch.setattr(dim.neighbours, "require_same_images", lambda *_: None)
    return tmp_path


def test_the_command_draws_into_the_run(run, data, capsys):
    main([str(run), "--device", "cpu"])
    out = capsys.readouterr().out
    colours = [x[:, :, 0, 0] / 255 for x in (data.x_test, data.x_train)]
    expected = draw_neighbours(*colours, data, path=run / "twin.png", seed=3)
    assert f"precision@9, cosine: {100 * expected['cosine']:.1f} %" in out
    assert (run / "neighbours.png").read_bytes() == (run / "twin.png").read_bytes()


def test_the_page_of_the_report_has_the_new_figure(run, data):
    (run / "report.md").write_text(
        "# Report\n\n± what was found\n\n![n](neighbours.png)\n", "utf-8"
    )
    for more in ([], ["--seed", "4"], ["--seed", "5", "--out", str(run / "neighbours.png")]):
        main([str(run), "--device", "cpu", *more])
        html = (run / "report.html").read_text("utf-8")
        assert base64.b64encode((run / "neighbours.png").read_bytes()).decode() in html
        assert "± what was found" in html
    (run / "report.html").unlink()
    main([str(run), "--seed", "6", "--out", str(run / "elsewhere.png"), "--device", "cpu"])
    assert not (run / "report.html").exists()  # the figure in it is as it was
    assert "± what" in (run / "report.md").read_text("utf-8")


def test_the_command_draws_runs_side_by_side(run, data, capsys):
    out = run / "comparison.png"
    main([str(run / "global"), str(run / "local"), "--out", str(out), "--device", "cpu"])
    printed = capsys.readouterr().out
    codes = Codes(*(x[:, :, 0, 0] / 255 for x in (data.x_train, data.x_test)))
    both = {"global": codes, "local": codes}
    expected = draw_side_by_side(both, data, path=run / "twin.png", seed=3)
    for name, share in expected.items():
        assert f"precision@9, {name}: {100 * share:.1f} %" in printed
    assert out.read_bytes() == (run / "twin.png").read_bytes()


OPTIONS = {"queries": 4, "k": 5, "layer": "conv"}


@pytest.mark.parametrize("runs", [["one"], ["global", "local"]])
def test_the_command_takes_numbers_layer_and_seed(run, data, capsys, runs):
    flags = [str(part) for name, value in OPTIONS.items() for part in (f"--{name}", value)]
    flags += ["--seed", "8", "--device", "cpu"]
    out, retrieval = run / "n.png", Retrieval(**OPTIONS)
    main([*(str(run / name) for name in runs), "--out", str(out), *flags])
    conv = [
        ((x[:, :, 0, 0] / 255) ** 2).repeat_interleave(4, 1) for x in (data.x_train, data.x_test)
    ]
    if len(runs) == 1:
        codes, draw = conv[::-1], draw_neighbours
    else:
        codes, draw = [dict.fromkeys(runs, Codes(*conv))], draw_side_by_side
    expected = draw(*codes, data, path=run / "twin.png", retrieval=retrieval, seed=8)
    printed = capsys.readouterr().out
    for name, share in expected.items():
        assert f"precision@5, {name}: {100 * share:.1f} %" in printed
    assert out.read_bytes() == (run / "twin.png").read_bytes()


@pytest.mark.parametrize("flags", [["--queries", "0"], ["--k", "41"]])
def test_numbers_that_cannot_be_drawn_are_refused_before_encoding(run, capsys, monkeypatch, flags):
    monkeypatch.setattr(dim.neighbours, "load_encoder", lambda run: pytest.fail("too late"))
    with pytest.raises(SystemExit) as exit:
        main([str(run), *flags])
    assert exit.value.code == 2
    assert f"received {flags[1]}" in capsys.readouterr().err
    assert not list(run.iterdir())


def test_runs_of_one_name_are_told_apart_by_their_folders(run, capsys):
    runs = [str(run / part / "same") for part in ("a", "b")]
    main([*runs, "--out", str(run / "n.png"), "--device", "cpu"])
    printed = capsys.readouterr().out
    assert all(f"precision@9, {name}: " in printed for name in runs)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "out: expected a file for the figure of 2 runs, received none; pass --out"),
        (["grey", "--out", "n.png"], "data: expected 'colours' in"),
        (
            ["untrained", "--references", "--out", "n.png"],
            "runs: expected other titles than those of the references, received untrained; rename",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(run, capsys, monkeypatch, more, message):
    monkeypatch.chdir(run)
    with pytest.raises(SystemExit) as exit:
        main(["global", "local", *more])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(run.iterdir())


def test_a_users_mistake_is_one_line_and_exit_code_2(run, monkeypatch, capsys):
    def missing(run):
        raise ValueError("run: expected a run folder, received none")

    monkeypatch.setattr(dim.command, "load_config", missing)
    with pytest.raises(SystemExit) as exit:
        main([str(run)])
    assert exit.value.code == 2
    assert capsys.readouterr().err == "error: run: expected a run folder, received none\n"


def test_references_are_drawn_before_the_runs(run, data, capsys, monkeypatch):
    def untrained(run):
        encoder = Colour()
        nn.init.constant_(encoder.scale, -1)  # by cosine as good as trained, but it is another
        return encoder

    monkeypatch.setattr(dim.neighbours, "untrained_encoder", untrained)
    out = run / "n.png"
    main([str(run / "mine"), "--references", "--out", str(out), "--device", "cpu"])
    printed = capsys.readouterr().out
    parts = (data.x_train, data.x_test)
    codes = {
        "raw pixels": Codes(*((x.flatten(1) - 127.5) / 127.5 for x in parts)),
        "untrained": Codes(*(x[:, :, 0, 0] / -255 for x in parts)),
        "mine": Codes(*(x[:, :, 0, 0] / 255 for x in parts)),
    }
    expected = draw_side_by_side(codes, data, path=run / "twin.png", seed=3)
    lines = [f"precision@9, {name}: {100 * share:.1f} %" for name, share in expected.items()]
    assert printed.splitlines()[:3] == lines
    assert out.read_bytes() == (run / "twin.png").read_bytes()
