"""Fit softmax-gated experts by certified maximum likelihood.

likelihood     climbs the conditional likelihood by Newton's method or EM
starts         begins from clusters, or from an atom split in two
search         takes the best of several starts
merging        merges the atoms of an over-fit, and reads off how many experts there are
global_search  grows a fit atom by atom, splits and slices: the highest maximum that can be found
"""
