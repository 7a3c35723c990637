"""All tests: those that start whole sites beside the others, as the first mostly wait.

    python -m tests [what pytest takes]

Prints the two outputs one after the other. With a file or folder named it is plain pytest.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile

WITH_SITES = ("tests/chaos", "tests/e2e", "tests/test_up.py")
_NO_TESTS = 5


def main(arguments: list[str]) -> int:
    """Returns the first exit status of pytest that says that something is wrong, else 0."""
    pytest = [sys.executable, "-m", "pytest"]
    if any(Path(argument.partition("::")[0]).exists() for argument in arguments):
        return subprocess.run([*pytest, *arguments], check=False).returncode
    others = [f"--ignore={path}" for path in WITH_SITES]
    with TemporaryFile() as output:
        sites = subprocess.Popen(
            [*pytest, *WITH_SITES, *arguments], stdout=output, stderr=subprocess.STDOUT
        )
        try:
            first = subprocess.run([*pytest, *others, *arguments], check=False).returncode
        finally:  # Ctrl-C reaches both
            second = sites.wait()
            output.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    statuses = {first, second} - {0, _NO_TESTS}
    if statuses:
        return min(statuses)
    return _NO_TESTS if {first, second} == {_NO_TESTS} else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
