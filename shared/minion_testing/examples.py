"""The documentation's examples, as tests read them."""

import re

_MASK = re.compile(r'"update_mask": \{"paths": \[([^\]]*)\]\}')


def as_json(body: str) -> str:
    """Turns a body for grpcurl into the JSON that protobuf's own parser reads.

    grpcurl takes a field mask as the message that it is, the parser as one string of names in camel case.
    """

    def mask(found: re.Match[str]) -> str:
        names = [
            re.sub(r"_(\w)", lambda letter: letter[1].upper(), name) for name in re.findall(r'"([^"]+)"', found[1])
        ]
        return f'"update_mask": "{",".join(names)}"'

    return _MASK.sub(mask, body)
