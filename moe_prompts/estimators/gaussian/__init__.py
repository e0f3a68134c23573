"""Certified maximum likelihood of Gaussian-gated experts.

em            the textbook loop
newton        trust-region Newton on sufficient statistics, with a certificate
search        the best of several starts
starts        where a fit begins: near the truth, from data, random
moments       passes over the data: log-likelihood, statistics, curvature
streaming     the same passes over samples larger than memory
compression   many points as one, where they lie close
chart         coordinates without constraints
"""
