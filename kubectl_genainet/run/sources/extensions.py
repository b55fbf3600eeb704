"""Modules that register themselves with the product: each is imported before the first source is read.

Facts may come from a lab by a bundle too, so the lab's enforcer is known to every source.
"""

from __future__ import annotations

import importlib

EXTENSIONS = ("kubectl_genainet.lab.extension",)


def load_extensions() -> None:
    for name in EXTENSIONS:
        importlib.import_module(name)
