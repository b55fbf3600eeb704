"""Random rulesets and real packets: prints every flow that the evaluator judged otherwise than the kernel. Needs root.

python -m scripts.fuzz_rules [RULESETS [FLOWS [SEED]]]
"""

from __future__ import annotations

import sys
import time

from tests.rules_fuzz import Count, differences
from tests.rules_wire import Wire


def main() -> int:
    numbers = [int(argument) for argument in sys.argv[1:]]
    rulesets, flows, seed = (*numbers, *(300, 20, 1)[len(numbers) :])
    count, wrong, start = Count(), 0, time.monotonic()
    with Wire() as wire:
        for difference in differences(wire, seed, rulesets, flows, count):
            wrong += 1
            print(f"{difference.flow}\n  did {difference.did}, said {', '.join(difference.said)}")
            print("\n".join(difference.dumps))
    print(
        f"{count.flows} flows, {wrong} wrong, {count.unknown} unknown, {count.refused} rulesets that the tools refused, "
        f"{time.monotonic() - start:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
