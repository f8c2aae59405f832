"""`python -m cpu_pipeline`."""

import sys

from cpu_pipeline.cli import main

sys.exit(main())
