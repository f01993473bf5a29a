"""`python -m dataset_scripts.export`."""

import sys

from .command_line import main

sys.exit(main())
