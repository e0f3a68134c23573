"""Fit softmax-gated experts by certified maximum likelihood.

likelihood  climbs the conditional likelihood by Newton's method or EM
starts      begins from clusters, or from an atom split in two
search      takes the best of several starts
"""
