"""Handlers of the ops of a TFLite file, and what is worked out when it is read."""
