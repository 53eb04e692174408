"""What a JEPA has to beat: other objectives on the same encoder, data and budget. References, not products."""
