"""Models, one per file.

Each file exposes `Settings` and `build(settings, shape, outputs) -> Model`, with the shape of a picture (channels,
height, width) and the number of outputs. Inputs are rows of features, see `study.contracts.Dataset`.
"""
