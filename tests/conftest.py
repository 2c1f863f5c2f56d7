"""What all tests share."""

import os
import signal
from contextlib import contextmanager, nullcontext

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched from a model hub
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# The same examples on every run, and no limit on the time of one: some start processes.
settings.register_profile("workbench", derandomize=True, deadline=None, database=None)
settings.load_profile("workbench")


def pytest_configure(config):
    """Keep nbval from measuring kernels: coverage's own patch does, and two at once fail."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for a shell's background jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else children would ignore it
    config.option.cov_source = None


#: Tests that go through many cases of what others cover already: to measure them, too, would nearly
#: double the time of the whole suite. What their ranks do is measured all the same.
UNMEASURED = {
    "test_context.py", "test_equal_to_one_device.py", "test_footprint.py", "test_fsdp.py",
    "test_footprint_options.py", "test_masks_and_orders.py", "test_meshes.py", "test_padding.py",
    "test_schedules.py", "test_sharded_context.py", "test_traffic.py", "test_verify.py",
}  # fmt: skip
#: Neither are the kernels of notebooks: each runs a second time in a browser.
KERNELS = {"test_browser.py", "test_notebooks.py"}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in UNMEASURED:
            item.add_marker(pytest.mark.no_cover)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    kernels = item.path.suffix == ".ipynb" or item.path.name in KERNELS
    with _unmeasured_children() if kernels else nullcontext():
        return (yield)


@contextmanager
def _unmeasured_children():
    """Start processes without coverage, which it asks for by this variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield
