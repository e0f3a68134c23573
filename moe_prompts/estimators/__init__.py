"""Fit models: (family, data, start, options) -> FitResult, with a status and a certificate.

Each model has a folder: ``gaussian`` and ``softmax`` hold maximum likelihood, ``prompts`` holds least
squares. What they share stands beside the folders: ``trust_region`` climbs, ``stages`` searches, ``result``
says what a fit returns.
"""
