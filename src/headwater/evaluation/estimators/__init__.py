"""What estimators of off-policy evaluation are made of."""
