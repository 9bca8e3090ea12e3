"""The one definition of features: compiled from a declared set, used by the stream, the decision service and replay.

``FeatureSet`` holds one ``Stage`` per entity; a stage turns (state of a key, event) into (values, new state), and the set
assembles the values to a vector. Everything is a pure function. What each feature means is said in
``fraud_contracts.feature_kinds``, how it is computed in ``aggregates`` and ``transforms``, what a state remembers in ``curve``.
"""

from fraud_contracts.names import profile_key
from fraud_pipelines.features.engine import FeatureSet, compile_detector
from fraud_pipelines.features.profile import FullHeader, ProfileError, read_header
from fraud_pipelines.features.spec import (
    EntitySpec,
    FeatureSetSpec,
    FeatureSpec,
    from_detector,
)
from fraud_pipelines.features.stage import KeyState, Stage

__all__ = [
    "EntitySpec",
    "FeatureSet",
    "FeatureSetSpec",
    "FeatureSpec",
    "FullHeader",
    "KeyState",
    "ProfileError",
    "Stage",
    "compile_detector",
    "from_detector",
    "profile_key",
    "read_header",
]
