"""The API's description, made from the detector: its transaction's own fields are in it."""

from __future__ import annotations

from typing import Any, Final

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.detector_clients import Scope
from fraud_contracts.detector_event import FieldType, TimeUnit
from fraud_contracts.errors import Degraded, Reason

_KINDS: Final = {
    FieldType.STRING: "string",
    FieldType.INTEGER: "integer",
    FieldType.NUMBER: "number",
    FieldType.BOOLEAN: "boolean",
}
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "field": {"type": ["string", "null"]},
            },
        }
    },
}


def _transaction(spec: DetectorSpec) -> dict[str, Any]:
    event = spec.event
    time_kind = {TimeUnit.MS: "integer", TimeUnit.S: "number", TimeUnit.RFC3339: "string"}[event.time.unit]
    properties: dict[str, Any] = {
        event.id.field: {
            "type": ["string", "integer"],
            "description": "Unique for ever; a repeat gets the same answer.",
        },
        event.time.field: {"type": time_kind, "description": f"Event time, {event.time.unit.value}."},
        event.amount.field: {
            "type": "number",
            "minimum": 0,
            "description": f"At most {event.amount.scale} decimals.",
        },
    }
    if event.amount.currency_field:
        properties[event.amount.currency_field] = {"enum": [event.amount.currency]}
    for entity in spec.entities:
        properties[entity.field] = {
            "type": ["string", "integer", "null"],
            "description": f"The {entity.name}.",
        }
    for field in event.fields:
        properties.setdefault(field.name, {"type": [_KINDS[field.type], "null"]})
    required = [event.id.field, event.time.field, event.amount.field, spec.entities[0].field]
    if event.amount.currency_field:
        required.append(event.amount.currency_field)
    return {"type": "object", "required": required, "properties": properties}


def _decision() -> dict[str, Any]:
    reason = {
        "type": "object",
        "properties": {
            "code": {
                "type": "string",
                "description": "Stable: a feature's name, rule:, list:, limit: or fallback:.",
            },
            "text": {"type": "string"},
            "contribution": {"type": "number", "description": "Added to the log-odds."},
        },
    }
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "action": {"enum": ["approve", "review", "decline"]},
            "score": {"type": ["integer", "null"], "minimum": 0, "maximum": 1000},
            "probability": {"type": ["number", "null"]},
            "reasons": {"type": "array", "items": reason},
            "release": {"type": "string"},
            "model_version": {"type": ["string", "null"]},
            "model_digest": {"type": ["string", "null"]},
            "arm": {"enum": ["stable", "candidate", None]},
            "degraded": {"type": "array", "items": {"enum": [str(mark) for mark in Degraded]}},
            "decided": {"type": "integer", "description": "UTC milliseconds."},
            "latency_ms": {
                "type": "number",
                "description": "From the request's last byte to the verdict, without claim and append.",
            },
        },
    }


def openapi_document(spec: DetectorSpec, name: str) -> dict[str, Any]:
    def answered(text: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"description": text, "content": {"application/json": {"schema": schema}}}

    codes = ", ".join(str(code) for code in Reason)
    again = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    refused = {
        "401": answered("X-API-Key is missing or wrong.", _ERROR),
        "403": answered("The key lacks the scope that this asks for.", _ERROR),
        "429": {**answered("The key asks more often than its client may.", _ERROR), "headers": again},
        "503": {
            **answered("Not possible now; the same request may be sent again.", _ERROR),
            "headers": again,
        },
    }
    errors = {
        "400": answered(f"The body can't be used. Codes: {codes}.", _ERROR),
        "413": answered("The body is too large.", _ERROR),
        **refused,
    }
    decided, missing = (
        answered("The decision.", _decision()),
        answered("Unknown, or older than a day.", _ERROR),
    )
    reused = answered("The id was used with another body.", _ERROR)
    report = {
        "type": "object",
        "required": ["id", "label", "source"],
        "properties": {
            "id": {"type": "string"},
            "label": {"enum": ["fraud", "legitimate"]},
            "source": {"enum": [source.name for source in spec.labels.sources]},
            "claimed": {"type": "integer", "description": "When it was reported, UTC milliseconds."},
        },
    }

    def body(schema: dict[str, Any]) -> dict[str, Any]:
        return {"required": True, "content": {"application/json": {"schema": schema}}}

    def asks_for(scope: Scope) -> dict[str, str]:
        return {"description": f"Asks for a key with the scope {scope} or {Scope.ADMIN}."}

    key = {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": f"A key of one of the detector's clients, each with scopes: {', '.join(Scope)}.",
    }
    number = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Decisions of {name}", "version": "1"},
        "security": [{"key": []}],
        "components": {"securitySchemes": {"key": key}},
        "paths": {
            "/v1/decisions": {
                "post": {
                    "summary": "Decide one transaction",
                    **asks_for(Scope.DECIDE),
                    "requestBody": body(_transaction(spec)),
                    "responses": {"200": decided, "409": reused, **errors},
                }
            },
            "/v1/decisions/{id}": {
                "get": {
                    "summary": "The decision of an id, for a day",
                    **asks_for(Scope.READ),
                    "parameters": [number],
                    "responses": {"200": decided, "404": missing, **refused},
                }
            },
            "/v1/labels": {
                "post": {
                    "summary": "Report what a transaction turned out to be",
                    **asks_for(Scope.LABEL),
                    "requestBody": body(report),
                    "responses": {
                        "202": answered("Recorded.", {"type": "object"}),
                        "422": answered("Refused.", _ERROR),
                        **errors,
                    },
                }
            },
            "/v1/release": {
                "get": {
                    "summary": "The release in use",
                    **asks_for(Scope.READ),
                    "responses": {"200": answered("It.", {"type": "object"}), **refused},
                }
            },
        },
    }
