"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# A machine that is busy with other work is no failure.
settings.register_profile("slant", deadline=None)
settings.load_profile("slant")
