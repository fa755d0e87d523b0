"""The K210's neural-network accelerator (KPU): registers, memory layout, arithmetic.

The living definition that the compiler and the simulator both stand on. Takes and gives
plain numbers and arrays; knows no file format. Reference: docs/kpu-and-kmodel.md, section 1.
"""
