"""What holds for all tests."""

from __future__ import annotations

import os

# Output is as wide as a pipe's unless a test says otherwise: workers of pytest-xdist are told their controller's width.
os.environ.pop("COLUMNS", None)
