"""What all tests share."""

import os
import signal

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
