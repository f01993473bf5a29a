"""`python -m dataset_scripts.export`."""

import sys

from .export import main

sys.exit(main())
