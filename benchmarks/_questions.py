"""Questions with 2 or 4 answers that a small model can tell apart, written for this repository: the same ones always.

What is compared is engines, not models. The questions are many, so that one near-tie is far less than a point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Question:
    """A beginning, and what may follow it."""

    kind: str
    prompt: str
    choices: tuple[str, ...]
    """The right one first. Each begins with a space, as words do within a sentence."""


def questions() -> list[Question]:
    """All of them."""
    return [*_agreement(), *_copying(), *_order(), *_facts(), *_sense()]


_NOUNS: Final = (
    ("key", "keys", "cabinet", "cabinets"), ("letter", "letters", "drawer", "drawers"),
    ("boat", "boats", "island", "islands"), ("teacher", "teachers", "student", "students"),
    ("picture", "pictures", "wall", "walls"), ("farmer", "farmers", "field", "fields"),
    ("child", "children", "window", "windows"), ("road", "roads", "village", "villages"),
    ("doctor", "doctors", "patient", "patients"), ("tree", "trees", "house", "houses"),
    ("book", "books", "shelf", "shelves"), ("song", "songs", "singer", "singers"),
)  # fmt: skip
_JOINS: Final = ("near", "behind", "beside")


def _agreement() -> Iterator[Question]:
    """The verb goes with the subject, not with the noun beside it."""
    for number, (one, many, other, others) in enumerate(_NOUNS):
        join = _JOINS[number % len(_JOINS)]
        for besides in (other, others):
            yield Question("agreement", f"The {one} {join} the {besides}", (" is", " are"))
            yield Question("agreement", f"The {many} {join} the {besides}", (" are", " is"))
            yield Question("agreement", f"Last year the {one} {join} the {besides}", (" was", " were"))
            yield Question("agreement", f"Last year the {many} {join} the {besides}", (" were", " was"))


_WORDS: Final = (
    "river", "candle", "orange", "silver", "window", "garden", "purple", "ladder", "pepper", "rocket",
    "button", "castle", "donkey", "engine", "forest", "hammer",
)  # fmt: skip
_NAMES: Final = ("Anna", "David", "Maria", "Peter", "Laura", "Simon", "Emma", "Robert")


def _copying() -> Iterator[Question]:
    """The answer stands in the question, beside others."""
    count = len(_WORDS)
    for number, word in enumerate(_WORDS):
        second, third, fourth = (_WORDS[(number + step) % count] for step in (3, 7, 12))
        wrong = (f" {second}", f" {third}", f" {fourth}")
        yield Question("copying", f"The password is {word}. I repeat: the password is", (f" {word}", *wrong))
        yield Question(
            "copying",
            f"{second} {third} {fourth} {word}\n{second} {third} {fourth}",
            (f" {word}", *wrong),
        )
        yield Question(
            "copying",
            f"In the red box there is a {second}. In the blue box there is a {word}. Open the blue box: it holds a",
            (f" {word}", *wrong),
        )
    for number, name in enumerate(_NAMES):
        second, third, fourth = (_NAMES[(number + step) % len(_NAMES)] for step in (1, 3, 4))
        wrong = (f" {second}", f" {third}", f" {fourth}")
        prompt = f"{name} gave {second} a book. {second} thanked"
        yield Question("copying", prompt, (f" {name}", *wrong))
        prompt = f"My name is {name}, and my brother's name is {second}. What is my name? My name is"
        yield Question("copying", prompt, (f" {name}", *wrong))


_CYCLES: Final = (
    ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
     "December"),
    ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"),
    tuple("ABCDEFGHIJKLMNOP"),
)  # fmt: skip


def _order() -> Iterator[Question]:
    """What comes next in a row."""
    for cycle in _CYCLES:
        for start in range(len(cycle) - 3):
            shown, answer = cycle[start : start + 3], cycle[start + 3]
            rest = [word for word in cycle if word not in (*shown, answer)]
            wrong = [shown[1], *(rest[(start + step) % len(rest)] for step in (0, 2))]
            yield Question("order", ", ".join(shown) + ",", (f" {answer}", *(f" {word}" for word in wrong)))


def _asking(kind: str, pattern: str, pairs: Sequence[tuple[str, str]]) -> Iterator[Question]:
    """Each pair's second word is right, those of three others are wrong."""
    answers = list(dict.fromkeys(answer for _, answer in pairs))
    for number, (about, answer) in enumerate(pairs):
        others = [word for word in answers if word != answer]
        wrong = (others[(number * step) % len(others)] for step in (1, 2, 5))
        distinct = list(dict.fromkeys(wrong))
        distinct += [word for word in others if word not in distinct]
        yield Question(kind, pattern.format(about), (f" {answer}", *(f" {word}" for word in distinct[:3])))


_CAPITALS: Final = (
    ("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Japan", "Tokyo"), ("Egypt", "Cairo"),
    ("Russia", "Moscow"), ("England", "London"), ("Germany", "Berlin"), ("Greece", "Athens"), ("Austria", "Vienna"),
    ("Ireland", "Dublin"), ("Cuba", "Havana"), ("Portugal", "Lisbon"), ("China", "Beijing"), ("Norway", "Oslo"),
    ("Poland", "Warsaw"), ("Peru", "Lima"), ("Iran", "Tehran"), ("Iraq", "Baghdad"), ("Hungary", "Budapest"),
)  # fmt: skip
_OPPOSITES: Final = (
    ("hot", "cold"), ("big", "small"), ("up", "down"), ("day", "night"), ("open", "closed"), ("wet", "dry"),
    ("fast", "slow"), ("early", "late"), ("rich", "poor"), ("light", "dark"), ("full", "empty"), ("young", "old"),
    ("happy", "sad"), ("hard", "soft"), ("high", "low"), ("left", "right"), ("true", "false"), ("strong", "weak"),
)  # fmt: skip
_COLOURS: Final = (
    ("Snow is", "white"), ("Grass is", "green"), ("Blood is", "red"), ("Coal is", "black"),
    ("A ripe banana is", "yellow"),
    ("On a clear day the sky is", "blue"), ("Fresh milk is", "white"), ("A ripe tomato is", "red"),
    ("The leaves of a tree in summer are", "green"), ("Soot is", "black"),
)  # fmt: skip
_PLACES: Final = (
    ("Fish live in", "water"), ("Bees make", "honey"), ("Cows give", "milk"), ("Hens lay", "eggs"),
    ("Bread is made from", "flour"), ("Wine is made from", "grapes"), ("Cheese is made from", "milk"),
    ("Windows are made of", "glass"), ("Books are printed on", "paper"), ("We hear with our", "ears"),
    ("We see with our", "eyes"), ("We smell with the", "nose"), ("Sheep give us", "wool"), ("Ice is frozen", "water"),
)  # fmt: skip


def _facts() -> Iterator[Question]:
    """What everybody knows."""
    yield from _asking("facts", "The capital of {} is", _CAPITALS)
    yield from _asking("facts", "The opposite of {} is", _OPPOSITES)
    yield from _asking("facts", "{}", _COLOURS)
    yield from _asking("facts", "{}", _PLACES)


_SENSE: Final = (
    ("She was thirsty, so she drank a glass of", "water", "sand", "paper", "stone"),
    ("It was raining, so he opened his", "umbrella", "sandwich", "piano", "shoe"),
    ("The soup was too hot, so we waited for it to", "cool", "sing", "grow", "read"),
    ("He was tired, so he went to", "bed", "fire", "glass", "Mars"),
    ("The room was dark, so she turned on the", "light", "snow", "bread", "river"),
    ("He cut the bread with a", "knife", "pillow", "cloud", "spoonful"),
    ("The dog wagged its", "tail", "book", "roof", "hat"),
    ("The bird flew up into the", "sky", "spoon", "shoe", "soup"),
    ("She read the last page and closed the", "book", "tree", "cat", "rain"),
    ("The baby began to", "cry", "rust", "melt", "boil"),
    ("He brushed his teeth before going to", "bed", "stone", "wood", "gold"),
    ("The farmer milked the", "cow", "car", "door", "pen"),
    ("They lit a fire to keep", "warm", "wet", "blue", "deaf"),
    ("She put a stamp on the", "letter", "fish", "horse", "river"),
    ("The pilot landed the", "plane", "apple", "song", "chair"),
    ("He locked the door and put the key in his", "pocket", "sun", "song", "lake"),
    ("The clock on the wall told them the", "time", "milk", "sand", "fish"),
    ("She planted the seeds in the", "garden", "radio", "oven", "music"),
    ("The cat chased the", "mouse", "moon", "week", "idea"),
    ("He caught a cold and had to stay in", "bed", "gold", "paint", "steel"),
    ("The train stopped at the", "station", "spoon", "button", "apple"),
    ("The king wore a golden", "crown", "soup", "river", "storm"),
    ("She baked a cake for his", "birthday", "shadow", "gravity", "traffic"),
    ("The students listened to their", "teacher", "carpet", "pencil", "lunch"),
    ("He poured the coffee into a", "cup", "book", "shoe", "tree"),
    ("In winter the lake was covered with", "ice", "fire", "wool", "ink"),
    ("The carpenter built a table out of", "wood", "milk", "smoke", "music"),
    ("She was cold, so she put on her", "coat", "lamp", "plate", "fork"),
    ("The ship sailed across the", "sea", "desk", "roof", "cup"),
    ("The hungry boy ate the", "apple", "window", "hammer", "cloud"),
    ("He took a photograph with his", "camera", "carrot", "blanket", "ladder"),
    ("The judge sent the thief to", "prison", "butter", "velvet", "thunder"),
    ("The doctor listened to her", "heart", "bicycle", "garden", "roof"),
    ("After the storm the sun began to", "shine", "bark", "drive", "knit"),
    ("She dried her hands with a", "towel", "hammer", "stone", "candle"),
    ("He paid for the ticket with", "money", "rain", "sleep", "smoke"),
    ("The orchestra played beautiful", "music", "bread", "stones", "shoes"),
    ("He forgot his glasses and could not", "see", "hear", "taste", "sneeze"),
    ("The river flows into the", "sea", "hat", "book", "moon"),
    ("They sat down at the table to eat", "dinner", "chairs", "sand", "thunder"),
)  # fmt: skip
_HERSELF: Final = (
    ("The girl looked at", "herself", "himself"), ("The boy hurt", "himself", "herself"),
    ("My sister made dinner for", "herself", "himself"), ("My father talks to", "himself", "herself"),
    ("The queen saw", "herself", "himself"), ("The king introduced", "himself", "herself"),
    ("My mother bought a ring for", "herself", "himself"), ("Her brother blamed", "himself", "herself"),
    ("The actress taught", "herself", "himself"), ("The old man asked", "himself", "herself"),
    ("We made it", "ourselves", "themselves"), ("The players trained by", "themselves", "himself"),
)  # fmt: skip


def _sense() -> Iterator[Question]:
    """How sentences end."""
    for prompt, *choices in (*_SENSE, *_HERSELF):
        yield Question("sense", prompt, tuple(f" {word}" for word in choices))
