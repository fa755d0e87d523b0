"""Build, prove and pack neural-network models for the Kendryte K210, as doit tasks."""

__version__ = "0.1.0"
