"""`python -m aifeedback` is `aifb`."""

import sys

from aifeedback.cli import main

sys.exit(main())
