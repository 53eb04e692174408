"""Networks: encoders, predictors and target encoders, without losses."""
