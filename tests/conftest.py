"""The suite's environment, and its fixtures (shared_fixtures.py) where tests are run."""

import os
import signal
import tempfile

# a shell's background jobs ignore the one, nohup the other, and so would their tests
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the suite's figures are those of CPUs, and two ranks need not share a GPU
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
CACHE = tempfile.TemporaryDirectory()  # of rows as token ids: not the user's own, and gone after the session
os.environ["HF_DATASETS_CACHE"] = CACHE.name

import pytest  # noqa: E402
import warm  # noqa: E402

if os.environ.get("WARM_PYTHON_OF") != warm.__file__:  # xdist's workers have that of the process which started them
    WARM = tempfile.TemporaryDirectory()
    warm.start_server(WARM.name)

pytest.register_assert_rewrite("helpers")


def pytest_configure(config):
    """The fixtures' libraries take seconds: the process that hands the tests to xdist's does without."""
    if not getattr(config.option, "numprocesses", None):
        config.pluginmanager.import_plugin("shared_fixtures")
