"""Networks: encoders, predictors and target encoders. Nothing here knows a loss."""
