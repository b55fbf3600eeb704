"""What holds for all tests."""

from __future__ import annotations

import os
import signal

# Output is as wide as a pipe's unless a test says otherwise: workers of pytest-xdist are told their controller's width.
os.environ.pop("COLUMNS", None)
# A shell without job control starts what runs in its background with SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
