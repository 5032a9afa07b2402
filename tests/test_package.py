"""What a user imports and installs."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mi_estimators

ROOT = Path(__file__).parents[1]
EXTRAS = [
    "sklearn",
    "datasets",
    "PIL",
    "safetensors",
    "matplotlib",
    "tyro",
    "pandas",
    "pyarrow",
    "markdown_it",
    "kornia",
    "torchmetrics",
    "tensorboard",
]


def test_the_public_names_are_these():
    assert sorted(mi_estimators.__all__) == sorted(
        [
            "AllLocations",
            "AlphaInfoNCE",
            "Bilinear",
            "Budget",
            "CLUB",
            "Compress",
            "Concat",
            "ConditionalGaussian",
            "Critic",
            "DV",
            "GaussianCopula",
            "InBatch",
            "InfoNCE",
            "InfoNCEAnchor",
            "JSD",
            "KSG",
            "L1Out",
            "LogLikelihood",
            "MIEstimate",
            "MIEstimator",
            "MINE",
            "NWJ",
            "NegativeSampler",
            "Negatives",
            "NormalScores",
            "Objective",
            "OneHot",
            "PairScores",
            "PearsonChi2",
            "ReverseKL",
            "SMILE",
            "Separable",
            "Shuffled",
            "SquaredHellinger",
            "TCopula",
            "TUBA",
            "estimate_conditional_mi",
            "estimate_mi",
            "estimate_total_correlation",
            "mlp",
            "preflight",
            "stretches",
        ]
    )
    assert all(hasattr(mi_estimators, name) for name in mi_estimators.__all__)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_both_packages_typed_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {
        "mi_estimators",
        "dim",
        f"mi_estimators-{mi_estimators.__version__}.dist-info",
    }
    assert {"mi_estimators/py.typed", "dim/py.typed"} <= set(names)


def test_the_installed_wheel_works_elsewhere_with_the_core_alone(wheel, tmp_path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)
    program = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS}))  # importing one of the extras fails from here on
sys.path.insert(0, {str(site)!r})
from mi_estimators import JSD, Budget, estimate_mi
import mi_estimators, torch
assert mi_estimators.__file__.startswith({str(site)!r}), mi_estimators.__file__
x = torch.randn(100, 2)
budget = Budget(folds=2, steps=2)
print(JSD(), estimate_mi(x, x + torch.randn(100, 2), budget=budget, progress=False))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("JSD() I(X; Y) = ")
