"""The machinery of evaluate.py: flags, plan, report, compare, inspection, plots, card."""
