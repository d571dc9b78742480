"""The steps of a streaming system as programs that run without this package: torch.export and ONNX."""
