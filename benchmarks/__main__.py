"""`python -m benchmarks [NAME…]`: runs the named benchmarks, or all of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> None:
    known = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))
    for name in sys.argv[1:] or known:
        if name not in known:
            raise SystemExit(f"there is no benchmark {name!r}; there are {', '.join(known)}")
        print(f"== {name}")
        importlib.import_module(f"benchmarks.{name}").main()


main()
