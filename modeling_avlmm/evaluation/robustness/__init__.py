"""Scores under compression, noise, delay and other perturbations."""
