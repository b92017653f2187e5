"""The option --device of the tests."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where test_device.py runs the networks, such as cuda")


@pytest.fixture
def device(request):
    """The device of --device."""
    return request.config.getoption("--device")
