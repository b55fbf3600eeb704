"""nft's language, read into the JSON that libnftables has for it."""
