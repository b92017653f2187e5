"""What an installed copy of the packages holds."""

from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def patterns(package):
    data = SETUP["options.package_data"]
    return (data["*"] + data.get(package, "")).split()


@pytest.mark.parametrize("top", ["maskgen", "pconv_model", "evaluation"])
def test_every_file_of_a_package_is_installed_with_it(top):
    folders = {path.parent for path in (ROOT / top).rglob("__init__.py")}
    installed = {
        path for each in folders for pattern in patterns(str(each.relative_to(ROOT)).replace("/", "."))
        for path in each.glob(pattern)
    }  # fmt: skip
    files = {path for path in (ROOT / top).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert not {path for path in files if path.suffix != ".py"} - installed
    assert not {path for path in files if path.suffix == ".py" and path.parent not in folders}


def test_nothing_is_installed_outside_the_three_packages():
    assert not SETUP["options"]["py_modules"].split()
    assert set(SETUP["options.packages.find"]["include"].split()) == {"maskgen*", "pconv_model*", "evaluation*"}
    scripts = dict(line.split(" = ") for line in SETUP["options.entry_points"]["console_scripts"].strip().splitlines())
    assert all(target.split(".")[0] in ("maskgen", "pconv_model", "evaluation") for target in scripts.values())
