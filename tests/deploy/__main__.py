"""Tries what the systemd unit does: `python tests/deploy`, after `cargo build`, as root.

Ends with one line of the form that Rust's test programs end with, so that the counts add up.
"""

import sys
import unittest
from pathlib import Path


def main() -> int:
    """Runs what lies in this folder; returns the exit status."""
    tests = unittest.defaultTestLoader.discover(str(Path(__file__).parent))
    result = unittest.TextTestRunner(verbosity=2).run(tests)
    failed = len({test.id() for test, _ in result.failures + result.errors})
    skipped = len(result.skipped)
    passed = max(result.testsRun - failed - skipped, 0)
    good = result.wasSuccessful() and passed > 0
    verdict = "ok" if good else "FAILED"
    print(f"test result: {verdict}. {passed} passed; {failed} failed; {skipped} ignored")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
