"""Fit prompts in an attention head by certified least squares.

least_squares        fits from several starts, for many data sets at once
levenberg_marquardt  minimises on a box
objective            gives the sum of squares and its box
coordinates          gives coordinates in which valleys are straight
quadrature           replaces a large sample by few points
"""
