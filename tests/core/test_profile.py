"""Profiles."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from tests.tiny import PROFILE

from assay.core.encoding import canonical, parse_canonical
from assay.core.errors import EncodingError
from assay.core.profile import Profile


def test_profiles_come_back() -> None:
    """Encoding and decoding give the same profile."""
    for profile in (
        PROFILE,
        replace(PROFILE, sampler="gumbel/2"),
        replace(PROFILE, sampler="foreign", flash_attention=True, engine="vLLM é"),
    ):
        again = Profile.from_json(parse_canonical(canonical(profile.to_json()), what="it"))
        assert again == profile
        assert again.digest == profile.digest


def test_every_member_changes_the_digest() -> None:
    """No member is left out of the digest."""
    other = {"flash_attention": True, "micro_batch": 9, "threads": 9, "context": 9, "sampler": "foreign"}
    variants = [PROFILE, *(replace(PROFILE, **{f.name: other.get(f.name, "other")}) for f in fields(Profile))]
    assert len({profile.digest for profile in variants}) == len(variants)


@pytest.mark.parametrize("name", sorted(PROFILE.to_json()))
def test_members_of_other_types_are_refused(name: str) -> None:
    """Wrong types (0 for false, true for 1), negative or huge numbers, lone surrogates, missing or added members."""
    good: dict[str, Any] = PROFILE.to_json()
    wrong: list[Any] = [None, 1.5, [], {}, -1, 2**53, "\ud800"]
    wrong += [good[name] == 0] if isinstance(good[name], int) and not isinstance(good[name], bool) else [0, 1]
    wrong += [] if isinstance(good[name], str) else ["1"]
    for value in wrong:
        with pytest.raises(EncodingError):
            Profile.from_json(good | {name: value})
    for other in ({k: v for k, v in good.items() if k != name}, good | {name + "_": 1}):
        with pytest.raises(EncodingError):
            Profile.from_json(other)


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, PROFILE.to_json() | {"sampler": "fair dice"}])
def test_other_things_are_no_profiles(value: Any) -> None:
    """Anything but an object with exactly the members, and samplers that nobody knows, are refused."""
    with pytest.raises(EncodingError):
        Profile.from_json(value)
