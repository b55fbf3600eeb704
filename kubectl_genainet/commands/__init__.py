"""The verbs of the command line, a file each."""

import time

STARTED = time.monotonic()  # when the command was given, but for the interpreter's own start
