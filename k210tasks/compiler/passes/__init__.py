"""The passes, each a function from graph to graph in a file of its own.

Their order: simplify, legalise, quantise, place; then encode writes the file.
"""
