"""Fit gated experts by certified least squares: the machinery of prompts, with another regression function."""
