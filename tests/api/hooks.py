"""What is refused in general and taken here on purpose: a null for a member that may be absent is left out, as
clients of mcpo expect, whose documents allow it."""

import schemathesis


def has_null(value):
    """Whether a null is anywhere in it."""
    if isinstance(value, dict):
        return any(has_null(one) for one in value.values())
    if isinstance(value, list):
        return any(has_null(one) for one in value)
    return value is None


@schemathesis.hook
def filter_case(_context, case):
    """Leaves out bodies that are wrong and have a null in them."""
    wrong = case.meta is not None and case.meta.generation.mode.is_negative
    return not (wrong and isinstance(case.body, (dict, list)) and has_null(case.body))
