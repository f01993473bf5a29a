"""`python -m dataset_scripts.demo_benchmark`."""

from .benchmark import main

if __name__ == "__main__":
    main()
