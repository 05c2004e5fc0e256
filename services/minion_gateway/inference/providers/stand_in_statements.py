"""The stand-in's patterns: what a clause says of the user, under a key that the same thing always gets."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from minion_gateway.inference.providers.stand_in_clauses import Clause

_FACT, _PREFERENCE, _SKILL = "fact", "preference", "skill"


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing said. `corrects` says that what was known under its key is no longer so."""

    kind: str
    key: str
    content: str
    importance: float
    corrects: bool = False


_I_AM = r"i(?:'m| am)"
_V = r"(?P<v>.+)"
# What a clause may end in beside the value itself.
_TAIL = re.compile(
    r"(?:,?\s+(?:now|nowadays|these days|any ?more|any longer|currently|at the moment|by the way|btw|too|as well|a lot|"
    r"very much|so much|please|again|instead|since .+|because .+|though|thanks))+$",
    re.I,
)
_WHEN = re.compile(
    r"\s+(?:last|this|with|for|in (?:\d{4}|january|february|march|april|may|june|july|august|september|october|"
    r"november|december))\b",
    re.I,
)
_LEADING = re.compile(r"^(?:a|an|the|to|my|some|now|currently|really|also)\s+", re.I)
_VAGUE = re.compile(
    r"^(?:it|that|this|these|those|them|you|your|to|been|had|not|no|so|what|how|when|where|why|if|done|got|just|never|"
    r"already|a (?:question|problem|doubt|idea|request|favou?r|look|feeling|meeting)|an (?:idea|issue|error|question)|"
    r"some (?:questions|problems|time)|trouble|time|questions?|problems?)\b",
    re.I,
)
_NO_NAMES = """
american australian austrian belgian brazilian british canadian chinese danish dutch english finnish french german greek
indian irish italian japanese korean mexican norwegian polish portuguese russian scottish spanish swedish swiss turkish
ukrainian welsh christian muslim jewish buddhist hindu catholic sorry fine here back happy glad sure ok okay good great
tired busy ready afraid hungry looking trying going not
"""
_ADJECTIVES = frozenset(_NO_NAMES.split())
_NO_OCCUPATIONS = "member owner parent mother father brother sister lover user person morning"
_NO_OCCUPATION = frozenset(_NO_OCCUPATIONS.split())
_OCCUPATION = re.compile(
    r"(?:er|or|ist|ian|eer|ant|ent|ect|man|woman|nurse|chef|cook|pilot|clerk|judge|coach|smith|wright|guide|vet)$", re.I
)
_ALIASES = {
    "job": "occupation",
    "profession": "occupation",
    "work": "occupation",
    "birth date": "birthday",
    "date of birth": "birthday",
    "home": "home",
    "city": "home",
    "home town": "hometown",
    "partner name": "partner",
    "company": "employer",
    "diet": "diet",
}


def statements(clause: Clause) -> Iterator[Statement]:
    """Yields what a clause says; nothing, where no pattern fits."""
    for rule in _RULES:
        found = [
            statement if statement.corrects or not clause.corrects else _corrected(statement)
            for statement in rule(clause)
        ]
        if found:
            yield from found
            return


def slug(text: str) -> str:
    """Writes a value as a part of a key: small letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("'s ", " ")
    # C++ and C# are two things.
    return re.sub(r"[^\w+#.]+", "-", plain).strip("-_.")[:80]


def _corrected(statement: Statement) -> Statement:
    return Statement(statement.kind, statement.key, statement.content, statement.importance, True)


def _match(pattern: str, clause: Clause) -> tuple[str, bool] | None:
    """Gives the value that a pattern finds and whether it corrects, or nothing where the value is none."""
    match = re.match(pattern + "$", clause.text, re.I)
    if match is None:
        return None
    value = match["v"].strip()
    corrects = bool(re.search(r"\b(?:now|no longer|moved|relocated)\b", clause.text, re.I))
    if (instead := re.match(r"^not (?:in |at |as )?(?P<old>.+?),? but (?:in |at |as )?(?P<new>.+)$", value, re.I)) or (
        instead := re.match(r"^(?P<new>.+?),? (?:and )?not (?:in |at |as )?(?P<old>.+)$", value, re.I)
    ):
        value, corrects = instead["new"], True
    value = _TAIL.sub("", value).strip(" .,!\"'")
    value = re.sub(r"^(?:now|currently)\s+", "", value, flags=re.I)
    return None if not value or len(value) > 200 or _VAGUE.match(value) else (value, corrects)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _bare(value: str) -> str:
    return _LEADING.sub("", value)


def _items(value: str) -> list[str]:
    """Takes a list of short things apart; what is long is one thing."""
    parts = [part.strip() for part in re.split(r"\s*,\s*(?:and |or )?|\s+(?:and|as well as)\s+", value) if part.strip()]
    return parts if all(len(part.split()) <= 3 for part in parts) else [value]


def _name(clause: Clause) -> Iterator[Statement]:
    for pattern in (
        rf"my (?:full |first |real )?name(?:'s| is) {_V}",
        rf"(?:you can |you may |everybody |everyone |people |friends )?call(?:s)? me {_V}",
        rf"{_I_AM} (?:called|named) {_V}",
        rf"i go by(?: the name(?: of)?)? {_V}",
    ):
        if (found := _match(pattern, clause)) and len(found[0].split()) <= 5:
            yield Statement(_FACT, "user/name", f"The user's name is {found[0]}.", 0.9, found[1])
            return
    match = re.match(rf"{_I_AM} (?P<v>(?:[^\W\d_][\w'-]*)(?: [^\W\d_][\w'-]*){{0,2}})$", clause.text, re.I)
    if match and all(word[0].isupper() and word.lower() not in _ADJECTIVES for word in match["v"].split()):
        yield Statement(_FACT, "user/name", f"The user's name is {match['v']}.", 0.9)


def _home(clause: Clause) -> Iterator[Statement]:
    if found := _match(rf"i (?:no longer live|(?:don't|do not) live) in {_V}", clause):
        yield Statement(_FACT, "user/home", f"The user no longer lives in {found[0]}.", 0.7, True)
        return
    for pattern in (
        rf"i (?:now |currently )?(?:live|reside) (?:now )?(?:in )?{_V}",
        rf"{_I_AM} (?:now |currently )?(?:living|based|residing|at home) in {_V}",
        rf"i(?:'ve| have)? (?:just |recently |now )?(?:moved|relocated)(?: from .+?)? to {_V}",
        rf"my home is (?:in )?{_V}",
        rf"my city is {_V}",
    ):
        if found := _match(pattern, clause):
            place = _WHEN.split(found[0])[0].removeprefix("in ")
            yield Statement(_FACT, "user/home", f"The user lives in {place}.", 0.7, found[1])
            return


def _work(clause: Clause) -> Iterator[Statement]:
    for pattern, employer in (
        (rf"i (?:now |currently )?work as {_V}", False),
        (rf"{_I_AM} (?:now |currently )?(?:working|employed) as {_V}", False),
        (rf"my (?:job|profession|occupation|work) is (?:that of |being )?{_V}", False),
        (rf"i (?:now |currently )?work (?:at|for) {_V}", True),
        (rf"{_I_AM} (?:now |currently )?(?:working|employed) (?:at|for|by) {_V}", True),
        (rf"my (?:employer|company) is {_V}", True),
    ):
        if found := _match(pattern, clause):
            value, corrects = found
            if employer:
                yield Statement(_FACT, "user/employer", f"The user works at {_bare(value)}.", 0.7, corrects)
            else:
                yield from _working(value, corrects)
            return
    if found := _match(rf"{_I_AM} (?:now )?(?=an? ){_V}", clause):
        role = found[0].partition(" at ")[0]
        last = role.split()[-1].lower()
        if len(role.split()) <= 4 and _OCCUPATION.search(last) and last not in _NO_OCCUPATION | _DIETS:
            yield from _working(*found)


def _working(value: str, corrects: bool) -> Iterator[Statement]:
    role, _, place = value.partition(" at ")
    yield Statement(_FACT, "user/occupation", f"The user works as {_bare(role)}.", 0.7, corrects)
    if place:
        yield Statement(_FACT, "user/employer", f"The user works at {_bare(place)}.", 0.7, corrects)


_DIETS = frozenset({"vegetarian", "vegan", "pescatarian"})
_MARITAL = frozenset({"married", "single", "divorced", "engaged", "widowed"})


def _being(clause: Clause) -> Iterator[Statement]:
    for pattern in (
        rf"{_I_AM} (?:severely |highly |very )?allergic to {_V}",
        r"i have (?:an? )?(?:severe |bad )?(?P<v>[\w -]+?) allerg(?:y|ies)",
        rf"i have (?:an? )?(?:severe |bad )?allerg(?:y|ies) to {_V}",
    ):
        if found := _match(pattern, clause):
            for item in _items(found[0]):
                one = re.sub(r"(?<=[^s])s$", "", _bare(item))
                yield Statement(
                    _FACT, f"user/allergy/{slug(one)}", f"The user has an allergy to {one}.", 0.95, found[1]
                )
            return
    if found := _match(rf"(?:{_I_AM}|i come|i was born and raised) (?:originally )?(?:from|in) {_V}", clause):
        yield Statement(_FACT, "user/origin", f"The user is from {found[0]}.", 0.6, found[1])
    elif match := re.match(rf"(?:{_I_AM}|my age is) (?:now )?(\d{{1,3}})(?: years? old)?$", clause.text, re.I):
        yield Statement(_FACT, "user/age", f"The user is {match[1]} years old.", 0.6, True)
    elif (found := _match(rf"i was born (?:on|in) {_V}", clause)) and re.search(r"\d", found[0]):
        yield Statement(_FACT, "user/birthday", f"The user's birthday is {found[0]}.", 0.7)
    elif found := _match(rf"{_I_AM} (?:now |strictly )?{_V}", clause):
        value = _bare(found[0]).lower()
        if value in _DIETS:
            yield Statement(_PREFERENCE, "user/diet", f"The user is {value}.", 0.8, found[1])
        elif value in _MARITAL:
            yield Statement(_FACT, "user/marital-status", f"The user is {value}.", 0.6, found[1])
        elif found[0].lower().startswith(("a ", "an ")) and len(value.split()) <= 5:
            yield Statement(_FACT, f"user/is/{slug(value)}", f"The user is {found[0]}.", 0.5)


_VERBS = r"(?:like|love|enjoy|adore)"
_NOT_VERBS = r"(?:hate|dislike|detest|can't stand|cannot stand|don't like|do not like|don't enjoy|do not enjoy)"
_HOW = r"(?:really |also |absolutely |truly |still |now )*"


def _liking(clause: Clause) -> Iterator[Statement]:
    for pattern, content, corrects in (
        (rf"i (?:no longer {_VERBS}|don't {_VERBS}(?= .* any ?more)) {_V}", "The user no longer likes {}.", True),
        (rf"i {_HOW}{_NOT_VERBS} {_V}", "The user dislikes {}.", False),
        (rf"i {_HOW}{_VERBS} {_V}", "The user likes {}.", False),
        (rf"{_I_AM} (?:a (?:big |huge )?fan of|fond of|into) {_V}", "The user likes {}.", False),
    ):
        if found := _match(pattern, clause):
            for item in _items(found[0]):
                key = f"user/likes/{slug(_bare(item))}"
                yield Statement(_PREFERENCE, key, content.format(_bare(item)), 0.6, corrects or found[1])
            return
    if found := _match(rf"i {_HOW}prefer {_V}", clause):
        better = re.split(r"\s+(?:over|to|rather than|instead of)\s+", found[0])[0]
        yield Statement(
            _PREFERENCE, f"user/prefers/{slug(_bare(better))}", f"The user prefers {_bare(found[0])}.", 0.6, found[1]
        )
    elif found := _match(rf"i (?:don't|do not|never) (?P<verb>eat|drink) {_V}", clause):
        verb = "drink" if re.search(r"\bdrink\b", clause.text, re.I) else "eat"
        for item in _items(found[0]):
            key = f"user/{verb}s/{slug(_bare(item))}"
            yield Statement(_PREFERENCE, key, f"The user does not {verb} {_bare(item)}.", 0.7, found[1])


def _possessions(clause: Clause) -> Iterator[Statement]:
    if found := _match(rf"i (?:no longer (?:have|own)|(?:don't|do not) (?:have|own)(?= .* any ?more)) {_V}", clause):
        thing = _bare(found[0])
        yield Statement(_FACT, f"user/has/{slug(thing)}", f"The user no longer has {found[0]}.", 0.5, True)
        return
    if found := _match(rf"i(?:'ve| have)? (?:got |own |(?<=have )){_V}", clause):
        thing, _, name = re.sub(r",? (?:called|named|whose name is) ", "\0", found[0]).partition("\0")
        bare = _bare(thing)
        yield Statement(_FACT, f"user/has/{slug(bare)}", f"The user has {thing}.", 0.5, found[1])
        if name:
            owned = bare.split()[-1]
            yield Statement(_FACT, f"user/{slug(owned)}-name", f"The user's {owned}'s name is {name}.", 0.6, found[1])
    elif found := _match(rf"i (?:can )?(?:also )?speak {_V}", clause):
        for item in _items(found[0]):
            yield Statement(_FACT, f"user/speaks/{slug(item)}", f"The user speaks {item}.", 0.6, found[1])


def _favorites(clause: Clause) -> Iterator[Statement]:
    thing = r"(?P<x>[\w -]{2,40}?)"
    for pattern in (
        rf"my (?:all-time )?favou?rite {thing}(?:'s| is| are| was) {_V}",
        rf"(?P<v>[\w' -]+?) (?:is|are) my (?:all-time )?favou?rite {thing}",
        rf"the {thing} (?:that )?i (?:like|love) (?:best|most) (?:is|are) {_V}",
        rf"when it comes to {thing}, (?:nothing beats|i like best) {_V}",
    ):
        if found := _match(pattern, clause):
            match = re.match(pattern + "$", clause.text, re.I)
            assert match is not None
            what = match["x"].strip()
            content = f"The user's favorite {what} is {_bare(found[0])}."
            yield Statement(_PREFERENCE, f"user/favorite-{slug(what)}", content, 0.7, found[1])
            return


def _belongings(clause: Clause) -> Iterator[Statement]:
    match = re.match(r"my (?P<x>[\w'-]+(?: [\w'-]+){0,3}?)(?: is| are|'s) (?P<v>.+)$", clause.text, re.I)
    if match is None:
        return
    what, value = match["x"].replace("'s", "").lower(), match["v"]
    found = _match(r"my .+?(?: is| are|'s) (?P<v>.+)", Clause(f"my x is {value}", ""))
    if gone := re.match(r"no longer (?P<v>.+)", value, re.I):
        key = f"user/{slug(_ALIASES.get(what, what))}"
        yield Statement(_FACT, key, f"The user's {what} is no longer {_TAIL.sub('', gone['v'])}.", 0.6, True)
        return
    if found is None:
        if not value.lower().startswith("not "):
            return
        found = (value, False)
    told, corrects = found
    if named := re.match(r"(?:called|named) (?P<n>.+)", told, re.I):
        what, told = f"{what} name", named["n"]
    attribute = _ALIASES.get(what, what)
    shown = f"{what[: -len(' name')]}'s name" if what.endswith(" name") else what
    yield Statement(_FACT, f"user/{slug(attribute)}", f"The user's {shown} is {told}.", 0.6, corrects)


def _skills(clause: Clause) -> Iterator[Statement]:
    match = re.match(
        r"(?P<when>(?:when(?:ever)?|if) i (?:ask|say|want|need|send)\b.+?|to [\w' -]{3,60}), "
        r"(?P<do>(?:you |always |first |please |run |use |open |call |answer |reply |send |write ).+)$",
        clause.text,
        re.I,
    )
    if match:
        yield Statement(_SKILL, f"agent/{slug(match['when'])}", _sentence(f"{match['when']}, {match['do']}"), 0.7)
        return
    if found := re.match(r"(?:from now on,? |always |never )(?:please )?.{3,200}$", clause.text, re.I):
        yield Statement(_PREFERENCE, f"user/asks/{slug(found[0])}", f"The user asks: {_sentence(found[0])}", 0.7)


def _notes(clause: Clause) -> Iterator[Statement]:
    if re.search(r"\b(?:remember|keep in mind|note|forget) that\b", clause.quote, re.I) and len(clause.text) > 8:
        yield Statement(_FACT, f"note/{slug(clause.text)}", _sentence(clause.text), 0.6)


_RULES = (_name, _home, _work, _favorites, _being, _liking, _possessions, _belongings, _skills, _notes)
