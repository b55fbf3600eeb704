"""`kubectl genainet`, and `python -m kubectl_genainet`.

Before the command line is loaded and after it has ended, Ctrl-C ends the program as it ends any other, and not with a traceback
from within an import or from the interpreter's own end.
"""

import signal


def main() -> None:
    expected = signal.getsignal(signal.SIGINT)  # ignored in what a shell starts in the background: that stays so
    outside = signal.SIG_DFL if expected is signal.default_int_handler else expected
    signal.signal(signal.SIGINT, outside)
    from kubectl_genainet.cli import main as run

    signal.signal(signal.SIGINT, expected)
    try:
        run()
    finally:
        signal.signal(signal.SIGINT, outside)


if __name__ == "__main__":
    main()
