"""Certified least squares for prompts in an attention head.

least_squares         fits from several starts, for many data sets at once
levenberg_marquardt   the minimiser
objective             the sum of squares and its box
coordinates           coordinates that fit the box
quadrature            exact expectations over the inputs
"""
