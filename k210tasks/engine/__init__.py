"""What carries out a step and knows none: plans, decisions, the runner (ARCHITECTURE.md)."""
