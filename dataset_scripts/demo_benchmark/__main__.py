"""`python -m dataset_scripts.demo_benchmark`."""

from .benchmark import main

main()
