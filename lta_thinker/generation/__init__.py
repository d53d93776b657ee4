"""Prompts with thoughts -> written answers: sampling, decoding, samplers, vllm, one question (solve)."""
