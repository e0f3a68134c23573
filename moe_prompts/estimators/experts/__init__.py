"""Fit gated experts by certified least squares.

The machinery is that of prompts, with another regression function.
"""
