"""2 FIT: (model family, data, start, options) -> FitResult, with a status and a certificate."""
