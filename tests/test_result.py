"""MIEstimate: the sentence, units, intervals, files, figures."""

import builtins
import dataclasses
import json
import math
import pickle
import re

import numpy as np
import pytest

from mi_estimators.result import Checkpoint, MIEstimate

HISTORY = (
    Checkpoint(0, "JSD()", 0, 0.0, 0.0),
    Checkpoint(0, "JSD()", 50, 0.7, 0.6),
    Checkpoint(0, "DV()", 0, 0.6, 0.6),
    Checkpoint(0, "DV()", 50, 1.1, 0.9),
    Checkpoint(1, "JSD()", 0, 0.0, 0.0),
    Checkpoint(1, "JSD()", 50, math.nan, 0.5),
)


class Sum:
    """A scorer that pickles."""

    def __call__(self, x, y):
        return np.asarray(x) + np.asarray(y)


def estimate(value=1.0, **changes):
    given = {
        "value": value,
        "standard_error": 0.1,
        "kind": "lower bound",
        "origin": "critic",
        "ceiling": 7.0,
        "certified": 0.5,
        "p_value": 0.001,
        "pointwise": np.linspace(-1, 3, 9),
        "influence": np.linspace(-2, 2, 9),
        "baseline": None,
        "effective_sample_size": 1234.5,
        "readouts": {"JSD": 0.9, "DV": 1.0, "InfoNCE": 0.95, "plug-in": 1.1},
        "history": HISTORY,
        "objective": "JSD(), DV()",
    }
    return MIEstimate(**given | changes)


def same(a, b):
    """All fields but the scorer."""
    for field in dataclasses.fields(MIEstimate):
        if field.name in ("pointwise", "influence"):
            arrays = getattr(a, field.name), getattr(b, field.name)
            np.testing.assert_array_equal(*arrays, strict=True)
        elif field.name == "history":
            assert repr(a.history) == repr(b.history)  # holds NaN
            assert all(isinstance(look, Checkpoint) for look in b.history)
        elif field.name != "scorer":
            assert getattr(a, field.name) == getattr(b, field.name), field.name
            assert type(getattr(a, field.name)) is type(getattr(b, field.name)), field.name


# --- the sentence ---------------------------------------------------------------------------------

TAIL = "; standard error over 9 samples)"


@pytest.mark.parametrize(
    ("changes", "inside"),
    [
        ({"origin": "critic"}, "lower bound by JSD(), DV(), on held-out samples"),
        ({"origin": "critic", "kind": "neither"}, "no bound by JSD(), DV(), on held-out samples"),
        ({"origin": "critic", "kind": "upper bound"}, "upper bound by JSD(), DV(), on held-out"),
        (
            {"origin": "baseline", "kind": "neither", "baseline": 1.0},
            "no bound: 1.000 in closed form, to which a critic had nothing to add",
        ),
        (
            {"origin": "baseline and critic", "kind": "neither", "baseline": 0.75},
            "no bound: 0.750 in closed form, +0.250 by a critic of JSD(), DV() on held-out samples",
        ),
        (
            {"origin": "baseline and critic", "kind": "neither", "baseline": 1.5},
            "no bound: 1.500 in closed form, -0.500 by a critic of JSD(), DV() on held-out samples",
        ),
        (
            {"origin": "neighbours", "kind": "neither", "baseline": 0.1},
            "no bound, by nearest neigh",
        ),
        ({"origin": "neighbours", "kind": "neither"}, "no bound, by nearest neighbours"),
    ],
)
def test_one_sentence_for_every_origin(changes, inside):
    sentence = str(estimate(**changes))
    assert sentence.startswith(f"I(X; Y) = 1.000 ± 0.100 nats ({inside}")
    assert sentence.endswith(TAIL + ".")
    assert sentence.count(".") - len(re.findall(r"\d\.\d", sentence)) == 1


def test_the_sentence_says_what_is_wrong_with_the_number():
    assert str(estimate(6.4)).endswith(
        TAIL
        + ", at its ceiling of 7.00, the most that so many samples can show: the true value is "
        "likely higher."
    )
    assert "ceiling" not in str(estimate(6.3))
    assert str(estimate(-0.1)).endswith(TAIL + ": negative, so no dependence was found.")
    nothing = estimate(0.0, pointwise=np.zeros(9))
    assert str(nothing).endswith(TAIL + ": no critic told the pairs from independent ones.")
    assert str(estimate(0.0)).endswith(TAIL + ".")


def test_many_samples_have_commas():
    assert "over 12,345 samples" in str(estimate(pointwise=np.zeros(12345)))


# --- derived numbers ------------------------------------------------------------------------------


def test_gain_is_what_the_value_adds_to_the_baseline():
    assert estimate().gain is None
    assert estimate(baseline=1.25).gain == -0.25


@pytest.mark.parametrize(("value", "saturated"), [(6.29, False), (6.31, True), (8.0, True)])
def test_saturated_is_within_10_percent_of_the_ceiling(value, saturated):
    assert estimate(value).saturated is saturated


@pytest.mark.parametrize(
    ("level", "half"), [(0.95, 1.959964), (0.5, 0.6744898), (0.99, 2.575829), (0.6826895, 1.0)]
)
def test_intervals_are_quantiles_of_the_normal_law(level, half):
    low, high = estimate().interval(level)
    assert (low, high) == pytest.approx((1 - 0.1 * half, 1 + 0.1 * half), abs=1e-6)
    assert estimate().interval() == estimate().interval(0.95)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95.0, math.nan])
def test_levels_outside_0_and_1_are_refused(level):
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1, received"):
        estimate().interval(level)


@pytest.mark.parametrize("bad", [-math.inf, math.inf, math.nan])
@pytest.mark.parametrize("field", ["value", "standard_error"])
def test_an_overflow_is_an_error_and_not_a_number(field, bad):
    with pytest.raises(FloatingPointError, match=r"from JSD\(\), DV\(\): its exponential overflow"):
        estimate(**{field: bad})


# --- units ----------------------------------------------------------------------------------------


def test_bits_are_nats_over_log_2_in_every_field():
    nats, log2 = estimate(baseline=0.75, scorer=Sum()), math.log(2)
    bits = nats.to("bits")
    assert bits.units == "bits"
    for name in ("value", "standard_error", "ceiling", "certified", "baseline", "gain"):
        assert getattr(bits, name) == pytest.approx(getattr(nats, name) / log2), name
    for name in ("pointwise", "influence"):
        np.testing.assert_allclose(getattr(bits, name), getattr(nats, name) / log2)
    assert bits.p_value == nats.p_value
    for name, number in nats.readouts.items():
        assert bits.readouts[name] == pytest.approx(number / log2)
    assert bits.score([1.0], [3.0]) == pytest.approx([4 / log2])
    assert bits.interval() == pytest.approx(tuple(end / log2 for end in nats.interval()))
    assert bits.history == nats.history
    assert bits.effective_sample_size == nats.effective_sample_size
    assert "1.443 ± 0.144 bits" in str(bits)
    assert "1.082 in closed form" in str(dataclasses.replace(bits, origin="baseline"))


def test_units_go_back_and_forth():
    nats = estimate(baseline=0.75)
    back = nats.to("bits").to("nats")
    assert back.value == pytest.approx(nats.value)
    assert back.ceiling == pytest.approx(nats.ceiling)
    np.testing.assert_allclose(back.pointwise, nats.pointwise)
    same(nats, nats.to("nats"))
    assert nats.to("bits").to("bits").value == nats.to("bits").value
    assert estimate().to("bits").baseline is None
    assert nats.units == "nats"
    assert nats.value == 1


# --- scores, files, copies ------------------------------------------------------------------------


def test_scores_come_from_the_scorer_and_not_from_a_file(tmp_path):
    result = estimate(scorer=Sum())
    assert result.score([1, 2], [3, 5]).tolist() == [4, 7]
    result.save(tmp_path / "estimate.json")
    with pytest.raises(ValueError, match="score: expected an estimate with its critics, received"):
        MIEstimate.load(tmp_path / "estimate.json").score([1, 2], [3, 5])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"baseline": 0.1 + 0.2, "origin": "baseline and critic", "warnings": ("a", "b")},
        {"readouts": {"JSD": -math.inf, "DV": math.nan}, "ceiling": math.inf},
        {"history": (), "pointwise": np.zeros(0), "p_value": None},
    ],
)
@pytest.mark.parametrize("units", ["nats", "bits"])
def test_files_hold_every_digit(changes, units, tmp_path):
    saved = estimate(math.pi, scorer=Sum(), **changes).to(units)
    saved.save(tmp_path / "estimate.json")
    loaded = MIEstimate.load(str(tmp_path / "estimate.json"))
    assert repr(loaded.readouts) == repr(saved.readouts)  # holds NaN
    same(dataclasses.replace(saved, readouts={}), dataclasses.replace(loaded, readouts={}))
    assert loaded.scorer is None
    assert str(loaded) == str(saved)


def test_files_are_json_with_names(tmp_path):
    estimate().save(tmp_path / "estimate.json")
    held = json.loads((tmp_path / "estimate.json").read_text())
    assert set(held) == {field.name for field in dataclasses.fields(MIEstimate)} - {"scorer"}
    assert held["value"] == 1
    assert held["history"][1] == [0, "JSD()", 50, 0.7, 0.6]


def test_estimates_pickle_with_their_critics():
    result = estimate(scorer=Sum())
    copied = pickle.loads(pickle.dumps(result))
    same(result, copied)
    assert copied.score([1.0], [2.0]).tolist() == [3]


def test_comparing_results_compares_no_arrays():
    result = estimate()
    assert result == result
    assert result != estimate()
    assert len({result, estimate()}) == 2


def test_arrays_stay_out_of_the_repr():
    assert "influence" not in repr(estimate())
    assert "pointwise" not in repr(estimate())
    assert "history" not in repr(estimate())
    assert "value=1.0" in repr(estimate())


def test_estimates_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimate().value = 2.0


# --- the figure -----------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["critic", "baseline and critic"])
def test_the_figure_has_three_panels(origin):
    result = estimate(origin=origin, baseline=None if origin == "critic" else 0.75)
    figure = result.plot()
    training, histogram, bracket = figure.axes
    assert [line.get_ydata().tolist() for line in training.lines[:2]] == [[0, 0.6], [0.6, 0.9]]
    assert len(training.lines) == 3
    assert [text.get_text() for text in training.get_legend().texts] == ["JSD()", "DV()"]
    colours = [line.get_color() for line in training.lines]
    assert colours[0] == colours[2] != colours[1]  # one for each objective
    assert sum(bar.get_height() for bar in histogram.patches) == 9
    names = [tick.get_text() for tick in bracket.get_yticklabels()]
    assert names == ["value", "certified", "JSD", "DV", "InfoNCE", "plug-in"]
    assert bracket.lines[0].get_xdata() == pytest.approx([1.0, 0.5, 0.9, 1.0, 0.95, 1.1])
    assert bracket.lines[1].get_xdata() == pytest.approx(result.interval())
    assert figure.get_suptitle() == str(result)


def test_the_figure_is_drawn_in_its_units(tmp_path):
    figure = estimate().to("bits").plot()
    assert "bits" in figure.axes[1].get_xlabel()
    assert figure.axes[2].get_xlabel() == "bits"
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_without_matplotlib_the_figure_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"plot: expected matplotlib, .*; pip install"):
        estimate().plot()
