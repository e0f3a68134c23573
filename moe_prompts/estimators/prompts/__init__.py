"""Fit prompts in an attention head by certified least squares.

least_squares        fits from several starts, for many data sets at once
levenberg_marquardt  minimises on a box
objective            gives the sum of squares and its box
coordinates          gives coordinates in which valleys are straight
key_coordinates      gives others to adaptive prompts with a bias
blocks               lays out points and kinds for the compiled objective
kernels              computes the objective and its derivatives in one compiled loop
steps                takes the steps between two passes, compiled or in NumPy
step_kernels         holds the compiled ones
quadrature           replaces a large sample by few points
"""
