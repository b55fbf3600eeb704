"""Which connections a trace shows, and how they are put together for a person."""
