"""Scripts that run inside a toolchain's own environment; nothing here is imported by us.

They must parse and run on every CPython of their toolchain (3.7 for nncase) and import
nothing but the standard library, each other and the vendor's package.
"""
