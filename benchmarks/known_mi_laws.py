"""The laws of `known_mi.py`, by family."""

import re

from mi_estimators.distributions import JointDistribution, beyond_normal

# The 40 tasks, which of them are called what: the first pattern that fits the start of a name.
BEYOND_NORMAL = {
    "1-d": r"1v1|(normal_cdf|wiggly|half_cube)-1v1",
    "student": r"student",
    "asinh-student": r"asinh",
    "swiss roll": r"swissroll",
    "multinormal": r"multinormal",
    "cdf": r"normal_cdf",
    "half-cube": r"half_cube",
    "spiral": r"spiral-multinormal",
    "spiral-cdf": r"spiral-normal_cdf",
}


def families() -> dict[str, dict[str, JointDistribution]]:
    """Every law by its name, by the name of its family; the 40 of Beyond Normal come first."""
    found: dict[str, dict[str, JointDistribution]] = {family: {} for family in BEYOND_NORMAL}
    for name, law in beyond_normal().items():
        family = next(f for f, pattern in BEYOND_NORMAL.items() if re.match(pattern, name))
        found[family][name] = law
    return found
