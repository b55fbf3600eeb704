"""Random rulesets and real packets: prints every flow that the evaluator judged otherwise than the kernel. Needs root.

python -m scripts.fuzz_rules [RULESETS [FLOWS [SEED]]]
"""

from __future__ import annotations

import sys
import time
from collections import Counter

from tests.rules_fuzz import Count, differences, load, smallest
from tests.rules_wire import Wire


def main() -> int:
    numbers = [int(argument) for argument in sys.argv[1:]]
    rulesets, flows, seed = (*numbers, *(300, 40, 1)[len(numbers) :])
    count, wrong, start = Count(), 0, time.monotonic()
    shown: set[str] = set()
    with Wire() as wire:
        for difference in differences(wire, seed, rulesets, flows, count):
            wrong += 1
            print(f"{difference.flow}\n  did {difference.did}, said {', '.join(difference.said)}")
            if difference.text not in shown:
                shown.add(difference.text)
                print(f"{difference.variant}:\n{smallest(wire, difference)}")
                load(wire, difference.variant, difference.text)
    for reason, number in Counter(count.reasons).most_common(12):
        print(f"{number:5} times: {reason}")
    print(
        f"{count.flows} flows, {wrong} wrong, {count.unknown} unknown, {count.decided_with_less} decided without devices, "
        f"{count.refused} rulesets that the tools refused, "
        f"{time.monotonic() - start:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
