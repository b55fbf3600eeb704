"""Doctor's report, for terminals, programs and browsers."""
