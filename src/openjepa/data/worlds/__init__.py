"""Synthetic worlds: data generated from known factors, so that meaning can be measured against surface."""
