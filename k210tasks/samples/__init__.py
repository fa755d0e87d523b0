"""Folders of pictures or tensors as arrays, under the preprocessing contract."""
