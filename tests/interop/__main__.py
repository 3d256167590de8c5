"""Runs the programs that nobody here wrote, a terminal, custodians, an auditor: after `cargo build`,
`python tests/interop`.

Ends with one line of the form that Rust's test programs end with, so that the counts add up.
"""

import sys
import unittest
import warnings
from pathlib import Path


def failed_tests(result: unittest.TestResult) -> int:
    """How many tests failed: one with several failed parts is one."""
    parts = [test for test, _ in result.failures + result.errors]
    whole = [getattr(part, "test_case", part).id() for part in parts]
    return len({*whole, *(test.id() for test in result.unexpectedSuccesses)})


def main() -> int:
    """Runs what lies in this folder; returns the exit status."""
    # The libraries say of double-length TDES, at every use, that its days are over.
    warnings.simplefilter("ignore")
    tests = unittest.defaultTestLoader.discover(str(Path(__file__).parent))
    result = unittest.TextTestRunner(verbosity=2, warnings="ignore").run(tests)
    failed, skipped = failed_tests(result), len(result.skipped) + len(result.expectedFailures)
    passed = max(result.testsRun - failed - skipped, 0)
    good = result.wasSuccessful() and passed > 0
    verdict = "ok" if good else "FAILED"
    print(f"test result: {verdict}. {passed} passed; {failed} failed; {skipped} ignored")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
