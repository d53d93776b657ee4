"""The machinery of train.py: flags, the run's rows, the Trainer, the small LM's states, preemption."""
