"""Measure how far a fit is from the truth: in parameters, in density and in prediction.

A Voronoi loss gives each fitted atom to the nearest true one and measures it there, with powers that depend
on how many atoms share the cell,

    D = sum_cells |mass difference| + sum_atoms mass |difference|^power.
"""
