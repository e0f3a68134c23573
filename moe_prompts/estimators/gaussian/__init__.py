"""Fit Gaussian-gated experts by certified maximum likelihood.

em             runs the textbook loop
newton         climbs by trust-region Newton on sufficient statistics, with a certificate
search         takes the best of several starts
global_search  grows a fit atom by atom, splits and slices: the highest maximum that can be found
merging        merges atoms of a fit with too many, and reads off how many experts there are
starts         says where a fit begins: near the truth, from data, random
moments        passes over the data: log-likelihood, statistics, curvature
streaming      does the same passes over samples larger than memory
compression    replaces many points by one, where they lie close
chart          gives coordinates without constraints
monomials      numbers the monomials that the statistics are sums of
compiled       lays out data for compiled passes
numpy_loops    makes the same passes in NumPy
steps          takes EM steps and curvature between the passes, compiled or in NumPy
step_kernels   holds the compiled ones
"""
