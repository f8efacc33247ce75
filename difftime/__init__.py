"""Diffusion times for score-based generative models: how long should the forward process run?"""

__version__ = "0.1.0"
