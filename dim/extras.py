"""Packages of the extras: what needs one says which, before anything is computed."""

from importlib.util import find_spec

MODULES = {"scikit-learn": "sklearn", "pillow": "PIL"}  # what differs from the package's name


def require_packages(
    *packages: str, argument: str, purpose: str, extra: str = "dim", otherwise: str = ""
) -> None:
    """Refuse to go on where one of these packages is absent.

    Args:
        packages: Names to install them by.
        argument: What asked for them.
        purpose: What they are for.
        extra: Which of this package's extras has them.
        otherwise: What to do instead, if there is anything.

    Raises:
        ModuleNotFoundError: If one is absent.

    Example:
        >>> require_packages("papyrus", argument="out", purpose="for ink", otherwise="use clay")
        Traceback (most recent call last):
        ...
        ModuleNotFoundError: out: expected papyrus for ink, received no papyrus; pip install 'mi-estimators[dim]', or use clay
    """  # noqa: E501
    absent = [name for name in packages if find_spec(MODULES.get(name, name)) is None]
    if absent:
        raise ModuleNotFoundError(
            f"{argument}: expected {' and '.join(packages)} {purpose}, received no "
            f"{' and no '.join(absent)}; pip install 'mi-estimators[{extra}]'"
            + (f", or {otherwise}" if otherwise else "")
        )
