"""What connections carried: measured, judged, and read where they are clear HTTP (pure)."""
