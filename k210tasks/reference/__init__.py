"""The float model that every kmodel is compared with, and the metrics."""
