"""Weights as files hold them: what is claimed, hashed, quantised, loaded later and put back."""
