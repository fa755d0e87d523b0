"""ONNX to the compiler's graph."""
