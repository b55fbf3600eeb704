"""What a NIC's driver counts of trouble: `ethtool -S`, by names that say so. Without a vendor's list: drivers name alike."""

from __future__ import annotations

import re

from pyroute2.ethtool.ioctl import IoctlEthtool

MAX_STATISTICS = 100  # of a device
_LONGEST_NAME = 15  # as IFNAMSIZ has it; one that is not UTF-8 is longer by its escapes, and no name to ask for
# rx_dropped, rx_out_of_buffer, tx_timeout, rx_discards_phy, bw_in_allowance_exceeded (ENA), queue_0_tx_queue_stop, …
_TROUBLE = re.compile(r"drop|discard|exceeded|out_of_buffer|no_buf|timeout|fifo_err|crc_err|missed", re.IGNORECASE)


def statistics(device: str) -> dict[str, int]:
    """Those of the device that count trouble and are not zero; empty where its driver counts nothing."""
    if len(device) > _LONGEST_NAME:
        return {}
    try:
        ethtool = IoctlEthtool(device)
    except (OSError, ValueError):
        return {}
    try:
        counters = dict(ethtool.get_statistics())
    except Exception:  # pyroute2 has errors of its own for a driver without statistics
        return {}
    finally:
        ethtool.close()
    trouble = {name: value for name, value in counters.items() if value and _TROUBLE.search(name)}
    return dict(sorted(trouble.items())[:MAX_STATISTICS])
