"""Makes the CustomResourceDefinition from the types in ``detector.py``: ``python -m fraud_contracts.crd > FILE``.

pydantic writes JSON schema with references; the API server wants a structural schema, so references are put in
place, titles dropped, and "or null" turned into optional. Defaults go in, so that a stored object is whole.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from fraud_contracts import names
from fraud_contracts.detector import NAME_RULES, DetectorSpec, dump
from fraud_contracts.detector_clients import default_clients
from fraud_contracts.detector_event import Labels
from fraud_contracts.detector_model import Rollout
from fraud_contracts.detector_status import DetectorStatus

_KEEP = {
    "type", "description", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems",
    "items", "properties", "required", "default", "additionalProperties", "x-kubernetes-validations",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-int-or-string", "anyOf",
}  # fmt: skip

# Members of a one-of: an empty object there would be a choice that nobody made.
_ONE_OF = {
    "train",
    "registered",
    "none",
    "managed",
    "external",
    "redis",
    "postgres",
    "mlflow",
    "storage",
    "resources",
}
_LIST_DEFAULTS: dict[tuple[str, ...], Any] = {
    ("labels", "sources"): dump(Labels())["sources"],
    ("rollout", "steps"): dump(Rollout())["steps"],
    ("model",): {"train": {}},
    ("kafka",): {"managed": {}},
    ("clients",): [dump(client) for client in default_clients()],
}


def _structural(node: Any, definitions: dict[str, Any]) -> Any:
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = dict(definitions[node["$ref"].rsplit("/", 1)[1]])
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    for join in ("anyOf", "allOf"):
        choices = [choice for choice in node.get(join, ()) if choice.get("type") != "null"]
        if join in node and len(choices) == 1:
            rest = {key: value for key, value in node.items() if key != join}
            return _structural({**choices[0], **rest}, definitions)
    if {choice.get("type") for choice in node.get("anyOf", ())} == {"integer", "string"}:
        return {"x-kubernetes-int-or-string": True}
    out = {key: value for key, value in node.items() if key in _KEEP}
    if out.get("default", ...) is None:
        del out["default"]
    if "properties" in out:
        out["properties"] = {key: _structural(value, definitions) for key, value in out["properties"].items()}
        out.pop("additionalProperties", None)
        out["type"] = "object"
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = _structural(out[key], definitions)
    if out.get("additionalProperties") is False:
        del out["additionalProperties"]
    return out


def _schema(model: type[DetectorSpec] | type[DetectorStatus]) -> dict[str, Any]:
    raw = model.model_json_schema(by_alias=True, mode="validation")
    out = _structural(raw, raw.get("$defs", {}))
    assert isinstance(out, dict)
    return out


def _fill(schema: dict[str, Any]) -> None:
    """Gives each optional object whose own fields have defaults the default ``{}``.

    The API server fills in an object's fields only where the object is there; types with a default factory come
    out of pydantic without one, and this puts it back.
    """
    for name, child in schema.get("properties", {}).items():
        if child.get("type") == "array" and isinstance(child.get("items"), dict):
            _fill(child["items"])
        if child.get("type") != "object" or "properties" not in child:
            continue
        _fill(child)
        optional = name not in schema.get("required", ()) and name not in _ONE_OF
        if optional and "default" not in child and not child.get("required"):
            child["default"] = {}


def _complete(schema: dict[str, Any]) -> None:
    """Writes out each object's default with all that it would be filled with.

    The API server checks a default against the object's CEL rules as it stands, before it fills it in, and a rule over
    an absent field fails.
    """
    for child in schema.get("properties", {}).values():
        _complete(child.get("items", child) if child.get("type") == "array" else child)
        if isinstance(child.get("default"), dict):
            child["default"] = _filled(child["default"], child)


def _filled(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    out = dict(value)
    for name, child in schema.get("properties", {}).items():
        if name not in out and "default" in child:
            out[name] = child["default"]
        if isinstance(out.get(name), dict):
            out[name] = _filled(out[name], child)
    return out


def custom_resource_definition() -> dict[str, Any]:
    """The CRD as a plain object, in the order in which it is written."""
    spec = _schema(DetectorSpec)
    _fill(spec)
    for path, default in _LIST_DEFAULTS.items():
        owner: dict[str, Any] = spec
        *parents, leaf = path
        for parent in parents:
            owner = owner["properties"][parent]
        owner["properties"][leaf]["default"] = default
    _complete(spec)
    status = _schema(DetectorStatus)
    columns = [
        ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
        ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason'),
        ("Model", "string", ".status.release.model"),
        ("Model live", "string", '.status.conditions[?(@.type=="ModelLive")].status'),
        ("Rollout", "string", ".status.rollout.phase"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
                "shortNames": ["fd"],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path} for name, kind, path in columns
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "required": ["spec"],
                            "x-kubernetes-validations": NAME_RULES,
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status,
                            },
                        }
                    },
                }
            ],
        },
    }


def main() -> None:
    """Writes the CRD to standard output as JSON, which is YAML."""
    text = json.dumps(custom_resource_definition(), indent=2)
    sys.stdout.write(
        "# Generated from fraud_contracts.detector; change that file and run: make crd\n" + text + "\n"
    )


if __name__ == "__main__":
    main()
