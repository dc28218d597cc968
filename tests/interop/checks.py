"""What a client's script says of itself: a line a check, `PASS` or `FAIL`, its name, what was wrong.

The names that must come are in run.sh, so a script that ends early does not pass.
"""

import asyncio

CHECK_SECS_MAX = 20


def say(verdict, name, why=""):
    """One line of the result."""
    print(f"{verdict}\t{name}\t{' '.join(str(why).split())}", flush=True)


def reason(error):
    """The innermost of what was raised: task groups wrap it."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def check(name, run):
    """Runs one check; nothing raised, in time, is a pass."""
    try:
        async with asyncio.timeout(CHECK_SECS_MAX):
            await run()
    except Exception as error:  # whatever it is, it is this check that failed
        say("FAIL", name, reason(error))
    else:
        say("PASS", name)


def same(what, found, wanted):
    """Fails the check unless both are equal."""
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, not {wanted!r}")


def ensure(holds, what):
    """Fails the check unless `holds`."""
    if not holds:
        raise AssertionError(what)
