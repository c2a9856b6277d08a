"""The JSON schema of a policy as its author writes it: for editors, and for programs that write policies."""

from __future__ import annotations

from typing import Any

from fulmen_safety.inheritance import EXTENDS, PROFILES
from fulmen_safety.policy_file import DEFAULT, PolicyFile
from fulmen_safety.taxonomy import taxonomy

#: Of the dialect (https://json-schema.org/draft/2020-12).
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def policy_schema() -> dict[str, Any]:
    """Return the schema of a policy file, before what it extends and its defaults are filled in.

    So a category needs no key, and a file that extends another needs nothing else. What only the whole can tell, such
    as a message that is missing, is left to `fulmen raise policy lint`.
    """
    schema = PolicyFile.model_json_schema()
    codes = sorted(taxonomy().titles)
    definitions = schema["$defs"]
    rules = definitions["CategoryPolicy"]
    del rules["required"]
    del definitions["Messages"]["required"]  # English may be inherited
    definitions["DetectorEntry"]["properties"]["rules"] |= {
        "propertyNames": {"enum": codes},
        "additionalProperties": {"$ref": "#/$defs/CategoryPolicy"},
    }
    schema["properties"]["categories"]["propertyNames"] = {"enum": [DEFAULT, *codes]}
    schema["properties"][EXTENDS] = {
        "description": f"A profile ({', '.join(PROFILES)}) or a file, relative to this one, that this one goes over.",
        "type": "string",
        "examples": list(PROFILES),
    }
    required = schema.pop("required")
    schema["anyOf"] = [{"required": [EXTENDS]}, {"required": required}]
    return {"$schema": DIALECT, **schema, "title": "RAISE policy"}
