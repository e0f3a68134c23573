"""Certified maximum likelihood of softmax-gated experts.

likelihood   Newton and EM on the conditional likelihood
starts       from clusters, or from an atom split in two
search       the best of several starts
"""
