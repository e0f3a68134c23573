"""Fit gated experts by certified least squares.

The machinery is that of prompts, with another regression function.

least_squares  fits from several starts
heights        gives coordinates in which the valley of two sigmoid gates is straight
"""
