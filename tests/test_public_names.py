"""The public names of the three packages."""

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("maskgen", "pconv_model", "evaluation")
NAMES = [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(package):
    heavy = {"torch", "pandas", "numpy", "cv2", "matplotlib", "av", "skimage"}
    code = f"import sys, {package}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_making_masks_never_loads_torch():
    code = "import sys, maskgen; [getattr(maskgen, name) for name in maskgen.__all__]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_each_public_name_is_there_and_documented(package, name):
    member = getattr(importlib.import_module(package), name)
    assert inspect.getdoc(member) and member.__name__ == name and member.__module__.startswith(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_that_of_a_module(package):
    module = importlib.import_module(package)
    assert not {each.name for each in pkgutil.iter_modules(module.__path__)} & set(module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_is_not_there_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="nonsense"):
        importlib.import_module(package).nonsense  # noqa: B018 - looking it up is the test


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_the_examples_in_docstrings_run(package, name):
    member = getattr(importlib.import_module(package), name)
    found = doctest.DocTestFinder(exclude_empty=True).find(member, name, globs={})
    report = []
    for example in found:
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_public_functions_have_type_hints(package, name):
    member = getattr(importlib.import_module(package), name)
    if inspect.isclass(member):
        functions = {key: each for key, each in vars(member).items() if inspect.isfunction(each) and key[0] != "_"}
    else:
        functions = {name: member}
    bare = [
        f"{key}({parameter.name})"
        for key, function in functions.items()
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in ("self", "cls") and parameter.annotation is parameter.empty
    ]
    bare += [key for key, function in functions.items() if "return" not in function.__annotations__]
    assert not bare
