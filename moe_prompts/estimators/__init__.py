"""Fit models: (family, data, start, options) -> FitResult, with a status and a certificate.

Each model has a folder: ``gaussian`` and ``softmax`` hold maximum likelihood, ``prompts`` and ``experts``
hold least squares. What they share stands beside the folders.

fits          fits a model in one call: the family is named, and the best certified fit returned
trust_region  climbs a log-likelihood
stages        searches from several starts, in stages
summits       says what a search for a global maximum found
result        says what a fit returns
kernels       holds compiled passes over the data of gated experts
"""
