"""What a run will take, from configs alone: memory and operations of a step on fake tensors (cost), hours on a card."""
