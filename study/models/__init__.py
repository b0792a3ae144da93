"""Models, one per file.

Each file exposes `Settings` and `build(settings, feature_count, output_count) -> Model`.
"""
