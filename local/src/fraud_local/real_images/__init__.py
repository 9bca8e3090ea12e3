"""The images that are shipped: built from the Dockerfiles, checked, described by an SBOM, published.

``fraud_local.images`` makes the native node's development images, which hold nothing. Standard library only.
"""
