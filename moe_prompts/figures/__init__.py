"""Draw tables: ``draw_*(ax, table)`` draw on given axes, ``*_figure`` lay out a whole figure.

style        sizes, legends, guides, and how a figure is saved
gates        error against n: Gaussian and softmax gates, prompts
attention    the attention study: risk, parameters, noise-free profiles
replication  the papers' simulations beside certified fits
studies      the figures of any run of ``experiments/sample_efficiency.py``
"""
