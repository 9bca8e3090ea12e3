"""What crosses a component: the custom resource, names, records, the release, metrics and errors.

Depends on the standard library and pydantic only, so that every environment can import it.
"""
