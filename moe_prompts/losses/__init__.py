"""3 LOSS: how far a fit is from the truth, in parameters, in density and in prediction."""
