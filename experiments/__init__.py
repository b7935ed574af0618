"""Commands: python -m experiments.<name> --config=experiments/configs/<file>.py --workdir=DIR."""
