"""Text of token streams: any split of any bytes gives the one-shot text, and nothing shown is ever taken back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core.errors import InvalidRequest
from assay.engines.text import MAX_STOP_CHARS, MAX_STOPS, TextStream, final_text

few = st.sampled_from("ab\né€😀")
texts = st.text(few, max_size=12)
stop_lists = st.lists(
    st.one_of(st.text(few, min_size=1, max_size=4), st.just("\ufffd"), st.just("b\ufffd")), max_size=4
)
noise = st.one_of(
    st.binary(max_size=3), texts.map(str.encode), st.sampled_from([b"\xf0\x9f", b"\xe2\x82", b"\xed\xa0\x80"])
)


def stream(pieces: list[bytes], stops: list[str]) -> tuple[str, bool, int]:
    """Text, whether it stopped, and the number of tokens that were pushed when it did."""
    stream = TextStream(pieces.__getitem__, stops)
    text = ""
    for token in range(len(pieces)):
        text += stream.push(token)
        if stream.stopped:
            return text + stream.finish(), True, token + 1
    text += stream.finish()
    return text, stream.stopped, len(pieces)


@given(st.lists(noise, max_size=12), stop_lists)
def test_any_split_gives_the_text_of_the_whole(pieces: list[bytes], stops: list[str]) -> None:
    """Pushing pieces and finishing gives `final_text` of their bytes, broken characters and broken UTF-8 included."""
    text, stopped, used = stream(pieces, stops)
    assert (text, stopped) == final_text(b"".join(pieces), stops)
    # The stop string needs its last token: without it the text had not ended, unless only the end of bytes tells.
    if stopped and used < len(pieces):
        assert final_text(b"".join(pieces[:used]), stops)[1]


@given(st.binary(max_size=24))
def test_bytes_one_by_one_decode_as_a_whole(data: bytes) -> None:
    """Invalid UTF-8 becomes U+FFFD exactly where `bytes.decode` puts it."""
    text, _, _ = stream([bytes([byte]) for byte in data], [])
    assert text == data.decode("utf-8", errors="replace")


@given(st.text(few, max_size=30), stop_lists)
def test_the_cut_is_before_the_first_complete_stop(text: str, stops: list[str]) -> None:
    """By the definition read aloud: grow the text until it ends with a stop string, then cut the longest such one."""
    expected, stopped = text, False
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            expected, stopped = text[: end - max(map(len, found))], True
            break
    assert final_text(text.encode(), stops) == (expected, stopped)


def test_what_may_become_a_stop_string_waits() -> None:
    """Text that begins a stop string is held until the next token decides."""
    pieces = [b"ab", b"c<|", b"x", b"<|e", b"nd|>", b"never"]
    stream = TextStream(pieces.__getitem__, ["<|end|>"])
    assert [stream.push(token) for token in range(6)] == ["ab", "c", "<|x", "", "", ""]
    assert stream.stopped
    assert stream.finish() == ""


def test_a_character_waits_for_its_last_byte() -> None:
    """Bytes of an unfinished character are not shown, and become U+FFFD only when nothing follows."""
    pieces = ["😀".encode()[:3], "😀".encode()[3:], "é".encode()[:1]]
    stream = TextStream(pieces.__getitem__, [])
    assert [stream.push(token) for token in range(3)] == ["", "😀", ""]
    assert stream.finish() == "\ufffd"


def test_a_stop_string_inside_another_ends_first() -> None:
    """The shorter stop string that is complete first wins, although the longer one had begun before it."""
    assert final_text(b"xabcab", ["abcab", "c"]) == ("xab", True)
    assert stream([b"xa", b"bc", b"ab"], ["abcab", "c"]) == ("xab", True, 2)


@pytest.mark.parametrize("stops", [[""], ["a", ""], ["x" * (MAX_STOP_CHARS + 1)], ["x"] * (MAX_STOPS + 1)])
def test_unusable_stop_strings_are_refused(stops: list[str]) -> None:
    """Empty, too long or too many stop strings are the request's fault, and the field is named."""
    with pytest.raises(InvalidRequest) as caught:
        TextStream(lambda _: b"", stops)
    assert caught.value.field == "stop"
