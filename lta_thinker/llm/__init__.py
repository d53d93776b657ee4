"""The frozen LMs: loading and checks (frozen), how they read (forward), embeddings alone, LoRA, sharding."""
