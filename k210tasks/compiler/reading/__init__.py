"""From the ops of a file to the graph: TFLite's, ONNX's, and what both share."""
