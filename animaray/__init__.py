"""animaray: a Ray-distributed platform for identity-preserving human image animation."""

__version__ = "0.1.0"
