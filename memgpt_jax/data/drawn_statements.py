"""Random statements about scenes, and a balanced choice of statements and scenes."""

from typing import Any, NamedTuple

import numpy as np

from memgpt_jax.data import statements as of
from memgpt_jax.data.scenes import COLOURS, SHAPES, SIZES, Scenes, joined, scattered_scenes, tower_scenes
from memgpt_jax.data.statements import Amount, Phrase, Statement

AMOUNTS = ("some", "plain", "exactly", "at least", "only") * 3 + ("no", "more than")
TOWER_PLACES = ("touching the wall", "touching the base", "touching the edge", "not touching the wall")
LINKS = ("with", "with", "which has", "that has", "having", "that contains")

LINES = """
a above all an and any are as at base below big black block blocks blue bottom box boxes circle circles closely color
colors contain contains corner different each edge exactly five four from grey has have having height in is item items
least left medium more no none not object objects of on one only over right same second seven side six small square
squares than that the there three top touching tower towers triangle triangles two wall where which with yellow
"""
WORDS = tuple(LINES.split())
"""The words of statements, in alphabetical order."""
LONGEST = 21
"""Words of the longest statement."""


class Draw:
    """Random statements about towers, or about scattered objects."""

    def __init__(self, rng: np.random.Generator, towers: bool):
        self.rng, self.towers = rng, towers

    def statement(self) -> Statement:
        """A statement of a random form."""
        forms = (self.boxes, self.boxes, self.things, self.all_boxes, self.of_all)
        return self.pick((*forms, self.boxes, self.base, self.on_top, self.same) if self.towers else forms)()

    def pick(self, items: Any) -> Any:
        """One of the items."""
        return items[int(self.rng.integers(len(items)))]

    def upto(self, most: int) -> int:
        """A number from 1 to `most`, small ones more often."""
        return 1 + int(self.rng.integers(most, size=2).min())

    def amount(self, most: int = 3) -> Amount:
        """An amount."""
        return of.amount(self.pick(AMOUNTS), self.upto(most))

    def colours(self, number: int) -> list[int]:
        """Different colours."""
        return self.rng.permutation(len(COLOURS))[:number].tolist()

    def noun(self) -> str:
        """A word for any object."""
        return self.pick(("block", "block", "block", "item", "object") if self.towers else ("item", "object"))

    def objects(self, colour: int | None = None, place: bool = False) -> Phrase:
        """Objects of a colour, of a random one or of any."""
        colour = self.colours(1)[0] if colour is None and self.rng.random() < 0.75 else colour
        if self.towers:
            return of.objects(colour, noun=self.noun(), place=self.pick(TOWER_PLACES) if place else "")
        shape = int(self.rng.integers(len(SHAPES))) if self.rng.random() < 0.65 else None
        size = int(self.rng.integers(len(SIZES))) if self.rng.random() < 0.05 else None
        return of.objects(colour, shape, size, self.noun(), self.pick(list(of.PLACES)) if place else "")

    def things(self) -> Statement:
        """Such as "there are exactly two black squares not touching any edge"."""
        return of.there_are(self.amount(4), self.objects(place=self.rng.random() < (0.3 if self.towers else 0.8)))

    def boxes(self) -> Statement:
        """Such as "there is at least one tower with a blue block at the top"."""
        names = ("tower{s}", "tower{s}", "tower{s}", "box{es}") if self.towers else ("box{es}", "grey box{es}")
        content = self.content()
        found = content._replace(text=f"{self.pick(names)} {content.text}")
        return of.there_are(of.amount(self.pick(AMOUNTS), int(self.rng.integers(1, 3))), found)

    def content(self) -> Phrase:
        """What a box holds."""
        noun, (first, second) = self.noun(), self.colours(2)
        one, two = COLOURS[first], COLOURS[second]
        number, link = int(self.rng.integers(1, 4)), self.pick(LINKS)
        colours = ("only one color", "two different colors", "all three different colors")[number - 1]
        forms = [
            lambda: of.holding(self.amount(4), self.objects(), link),
            lambda: of.holding(of.amount(self.pick(("exactly", "only", "plain")), self.upto(5)), of.objects(noun=noun)),
            lambda: of.both(
                of.holding(self.amount(2), self.objects(first)), of.holding(self.amount(3), self.objects(second), "and")
            ),
            lambda: of.only_colours((first,), f"with only {one} {noun}s"),
            lambda: of.only_colours(
                (first, second),
                self.pick((f"with only {one} and {two} {noun}s", f"with {noun}s of only {one} and {two} color")),
            ),
            lambda: of.of_colours(number, f"with {noun}s of {self.pick((colours, colours.replace('different ', '')))}"),
        ]
        if not self.towers:
            return self.pick([*forms, lambda: of.holding(self.amount(3), self.objects(place=True))])()
        return self.pick([*forms, self.relation, self.relation, self.level, self.level, self.level, self.high])()

    def relation(self) -> Phrase:
        """Such as "with a blue block over a black block"."""
        found = self.pair()
        return found._replace(text=f"{self.pick(LINKS)} {found.text}")

    def pair(self) -> Phrase:
        """Such as "a blue block over a black block"."""
        upper, lower = self.rng.integers(len(COLOURS), size=2).tolist()
        return of.relation(upper, lower, self.noun(), self.pick(("over", "above", "on top of", "on", "below")))

    def level(self) -> Phrase:
        """Such as "with a blue block at the top"."""
        (colour,), noun = self.colours(1), self.noun()
        place = self.pick(("top", "top", "base", "base", "second"))
        name, link = COLOURS[colour], self.pick(LINKS)
        texts = {
            "top": (f"{link} a {name} {noun} at the top", f"{link} a {name} {noun} on top"),
            "base": (
                f"{link} a {name} {noun} at the base",
                f"{link} a {name} {noun} at the bottom",
                f"with a {name} base",
            ),
            "second": (f"where the second {noun} is {name}", f"that the second {noun} from the base is {name}"),
        }
        return of.level(colour, place, self.pick(texts[place]))

    def high(self) -> Phrase:
        """Such as "with exactly two blocks and a blue block at the top"."""
        size = of.amount(self.pick(("exactly", "plain", "at least")), int(self.rng.integers(2, 5)))
        link = self.pick(("having", "with", "and"))
        name, place = self.colours(1)[0], self.pick(("top", "base"))
        at = of.level(name, place, f"{link} a {COLOURS[name]} {self.noun()} at the {place}")
        return of.both(of.holding(size, of.objects(noun=self.noun())), at)

    def all_boxes(self) -> Statement:
        """Such as "each box has at least one black item"."""
        name = "tower" if self.towers else self.pick(("box", "grey box"))
        plural = f"{name}s" if self.towers else f"{name}es"
        many = of.amount(self.pick(("some", "plain", "at least", "exactly")), self.upto(3))
        content = of.holding(many, self.objects(), "")
        text = self.pick(
            (f"each {name} has", f"each {name} contains", f"all {plural} contain", f"all three {plural} have")
        )
        if self.rng.random() < 0.25:
            return of.all_boxes(self.pick((f"none of the {plural} has", f"no {name} contains")), content, none=True)
        return of.all_boxes(text, content)

    def of_all(self) -> Statement:
        """Such as "all blue items are in the same box", or "black circles are not touching any edge"."""
        number, things = int(self.rng.integers(1, 4)), self.objects()
        place = self.pick(("touching the edge", "touching the wall", "not touching any edge", "touching any edge"))
        colours = ("there is only one color", "exactly two different colors are", "all three different colors are")
        return self.pick(
            (
                lambda: of.in_the_same_box(self.objects()),
                lambda: of.all_objects(things, place),
                lambda: of.all_objects(things, place),
                lambda: of.colours_there(number, "touching the wall", f"{colours[number - 1]} touching the wall"),
                lambda: of.none_of(things, place.removeprefix("not ")),
                self.one_of,
            )
        )()

    def one_of(self) -> Statement:
        """Such as "one of the grey square contains exactly three objects"."""
        name = "one of the towers" if self.towers else self.pick(("one of the grey square", "one of the grey box"))
        number, link = of.amount("exactly", self.upto(7)), self.pick(("has", "contains"))
        exactly = of.holding(number, of.objects(noun=self.noun()), link)
        return of.there_are(of.amount("plain", 1), exactly._replace(text=f"{name} {exactly.text}"), prefix="")

    def base(self) -> Statement:
        """Such as "there are two blue blocks as the base of a tower with at least two blocks"."""
        colour, place = self.colours(1)[0], self.pick(("base", "top"))
        text = f"{COLOURS[colour]} {self.noun()}{{s}} as the {place} of a tower"
        found = of.level(colour, place, text)
        if self.rng.random() < 0.5:
            size = of.amount(self.pick(("exactly", "plain", "at least")), int(self.rng.integers(2, 5)))
            found = of.both(found, of.holding(size, of.objects(noun="block")))
        return of.there_are(of.amount(self.pick(AMOUNTS), int(self.rng.integers(1, 4))), found)

    def on_top(self) -> Statement:
        """Such as "there is a blue block on a black block", or "the top of the two blocks tower is blue"."""
        colour, number, place = self.colours(1)[0], int(self.rng.integers(2, 5)), self.pick(("top", "base"))
        name, size = COLOURS[colour], of.NUMBERS[number]
        text = self.pick(
            (
                f"the tower with {size} blocks has a {name} block at the {place}",
                f"the {place} of the {size} blocks tower is {name}",
                f"there is a {size} blocks tower with a {name} block at the {place}",
            )
        )
        if self.rng.random() < 0.5:
            found = self.pair()
            start = self.pick(("there is", "there is", "there is at least one", "one tower has", "there is no"))
            absent = start == "there is no"
            words = found.text.removeprefix("a ") if start.startswith("there is ") else found.text
            return of.there_are(of.amount("no" if absent else "plain", 1), found._replace(text=words), prefix=start)
        tower = of.holding(of.amount("exactly", number), of.objects())
        return of.of_those(text, tower, of.level(colour, place, ""))

    def same(self) -> Statement:
        """Such as "there are at least two towers with the same height"."""
        start = self.pick(("there are at least two towers", "there are two towers"))
        return self.pick(
            (
                of.same(f"{start} with the same height", lambda scenes: scenes.present.sum(axis=2)),
                of.same(f"{start} which has the same base color", lambda scenes: scenes.colour[..., 0]),
            )
        )


class Drawn(NamedTuple):
    """N rows of statements and scenes."""

    statements: list[Statement]
    scenes: Scenes
    labels: np.ndarray
    """[N] 1 where the statement is true of the scene, else 0."""


def drawn_rows(rng: np.random.Generator, rows: int) -> Drawn:
    """Statements with scenes: of four rows each, two statements and two scenes, each once with either label.

    Neither the statements nor the scenes alone then say anything about the labels. Half of the scenes are towers.
    """
    found, scenes = [], []
    for towers, number in ((True, rows // 2), (False, rows - rows // 2)):
        draw = Draw(rng, towers)
        quads = -(-number // 4)
        statements = [draw.statement() for _ in range(3 * quads + 8)]
        pool = (tower_scenes if towers else scattered_scenes)(rng, max(48, 3 * quads))
        truth = np.stack([statement.holds(pool) for statement in statements])
        chosen = [row for _ in range(quads) for row in _quad(rng, truth)][:number]
        found += [(statements[statement], int(truth[statement, scene])) for statement, scene in chosen]
        scenes.append(pool.at(np.array([scene for _, scene in chosen], int)))
    order = rng.permutation(rows)
    kept = [found[i] for i in order]
    labels = np.array([label for _, label in kept], np.int32)
    return Drawn([statement for statement, _ in kept], joined(*scenes).at(order), labels)


def _quad(rng: np.random.Generator, truth: np.ndarray) -> list[tuple[int, int]]:
    """Statements s, t and scenes a, b: s is true of a alone, t of b alone. Args: truth: [statements, scenes] bool."""
    mixed = np.flatnonzero(truth.any(axis=1) & ~truth.all(axis=1))
    while True:
        s = rng.choice(mixed)
        a, b = (int(rng.choice(np.flatnonzero(truth[s] == value))) for value in (True, False))
        others = np.flatnonzero(~truth[:, a] & truth[:, b])
        if len(others):
            t = int(rng.choice(others))
            return [(int(s), a), (int(s), b), (t, a), (t, b)]
