"""What all tests share."""

import os
import signal
from contextlib import contextmanager, nullcontext

import cloudpickle
import jaxtyping
import pytest
from beartype.claw import beartype_package
from hypothesis import settings
from typecheck import CONF

# jaxtyping's checks take 30 us a call: it looks after the modules that annotate shapes (those in
# pyproject.toml's list), and beartype alone, for 1 us, after all others.
beartype_package("workbench", conf=CONF)

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


#: Tests that go through many cases of what others cover already: to measure coverage and to check
#: shapes there, too, would nearly double the time of the whole suite.
MANY_CASES = {
    "test_context.py", "test_equal_to_one_device.py", "test_federated_fuzz.py", "test_footprint.py",
    "test_footprint_options.py", "test_fsdp.py", "test_masks_and_orders.py", "test_meshes.py",
    "test_own_strategy.py", "test_padding.py", "test_positions.py", "test_recompute.py",
    "test_regather.py", "test_schedules.py", "test_sharded_context.py", "test_traffic.py",
    "test_verify.py",
}  # fmt: skip
#: Tests whose child processes are measured: ranks that are started afresh run the code that those
#: of the fork server run in all others. Kernels and federations run what tests cover here.
RANKS = ("spawn", "torchrun")


#: The longest, which must not be what all others have ended before.
FIRST = {"test_browser.py", "37-deploy-it.ipynb"}
#: What needs a machine that is not busy with all others.
LAST = {"test_federated_ray.py"}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: (item.path.name not in FIRST) + (item.path.name in LAST))
    for item in items:
        if item.path.name in MANY_CASES:
            item.add_marker(pytest.mark.no_cover)
    # What a test runs on ranks goes there as it is: to import the test's file takes them seconds.
    for module in {item.module for item in items if hasattr(item, "module")}:
        cloudpickle.register_pickle_by_value(module)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    measured = any(word in item.name for word in RANKS)
    with nullcontext() if measured else _unmeasured_children():
        jaxtyping.config.update("jaxtyping_disable", item.path.name in MANY_CASES)
        return (yield)


@contextmanager
def _unmeasured_children():
    """Start processes without coverage, which it asks for by this variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield
