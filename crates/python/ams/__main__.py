"""The program `ams`, as the command of the wheel and as `python -m ams`."""

import signal
import sys

from . import _ams


def main() -> None:
    """Runs the program with the arguments of this process, and ends with its exit code."""
    # The program decides itself what Ctrl-C does; Python's handler would wait for it to return.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(_ams.main(["ams", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
