"""The one definition of features: compiled from a declared set, used by the stream, the decision service and replay.

``FeatureSet`` holds one ``Stage`` per entity; a stage turns (state of a key, event) into (values, new state), and the set
assembles the values to a vector. Everything is a pure function. What each aggregate means is said at ``FeatureSpec``,
what a state remembers in ``curve``.
"""

from fraud_contracts.names import profile_key
from fraud_pipelines.features.engine import FeatureSet, compile_detector, compile_set
from fraud_pipelines.features.profile import Header, ProfileError, read_header
from fraud_pipelines.features.spec import (
    EntitySpec,
    FeatureSetSpec,
    FeatureSpec,
    FeatureSpecError,
    from_detector,
    payments_v1,
    spec_from_detector,
)
from fraud_pipelines.features.stage import Live, Stage

__all__ = [
    "EntitySpec",
    "FeatureSet",
    "FeatureSetSpec",
    "FeatureSpec",
    "FeatureSpecError",
    "Header",
    "Live",
    "ProfileError",
    "Stage",
    "compile_detector",
    "compile_set",
    "from_detector",
    "payments_v1",
    "profile_key",
    "read_header",
    "spec_from_detector",
]
