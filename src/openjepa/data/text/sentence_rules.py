"""Rules for where one sentence ends and the next begins, for English prose and arithmetic. No model, no dependency.

One regular expression stops at every mark that can end a sentence (. ! ? and their like, ellipses, line breaks,
bullets); a few checks on the words around it decide. A mark ends a sentence if white space follows and the next word
does not begin in lower case. A single full stop is the hard case: it may belong to a title (Dr. Lee), a numbered thing
(No. 5), an initial (J. K. Lee) or an acronym (the U.S. Army). Where such a word may also end a sentence ("in the U.S.
He left"), it does if the next word is one that often opens sentences and is hardly ever a name (STARTERS).

Every look around a mark is bounded, so the time is linear in the length of any text. Not handled: a name after a
quotation within a sentence ("Why?" Mr. Lee asked), and languages with other rules; choose another splitter for those.
"""

from __future__ import annotations

import re

LOOK_BACK = 32  # characters before a mark, enough to hold its word
LIST_REACH = 1000  # characters within which "1." and "2." belong to one list

# what may follow a full stop that ends a sentence: [3], [4,5], [a], [note 2], [citation needed], [3]: 5, ²
FOOTNOTE = r"""(?:
        \[(?:\d{1,4}(?:[,;–—-]\s?+\d{1,4}){0,9}+|[a-z]|(?:note|nb|fn|n)\.?+\s?+\d{1,3}|[a-z]{2,20}\ needed|sic)\]
        (?::\s?+\d{1,4}(?:[–-]\d{1,4})?+)?+
      | [¹²³⁰⁴-⁹]{1,3}+ )"""
MARK = re.compile(
    rf"""(?=[.!?…؟।۔。！？｡．\n\r\x0b\x0c\x85\u2028\u2029•⁃‣▪◦●])(?:  # one set first: seven times faster
        (?P<hard>[.…]*+[!?؟।۔][.!?…؟।۔]*+)        (?P<after_hard>["'”’»)\]}}*_]*+{FOOTNOTE}{{0,9}}+)
      | (?P<dots>[.…]++(?:[ \xa0]\.++(?!\w))*+)  (?P<after_dots>["'”’»)\]}}*_]*+{FOOTNOTE}{{0,9}}+)
      | (?P<wide>[。！？｡．]++)                   (?P<after_wide>[”’」』）】]*+)
      | (?P<line>[\n\r\x0b\x0c\x85\u2028\u2029]\s*+)
      | (?P<bullet>[•⁃‣▪◦●])
    )""",
    re.VERBOSE,
)
NEXT = re.compile(r"""\s*+["'“‘«(\[{¿¡*_—–-]*+(?P<word>[^\W\d_]++(?:['’][^\W\d_]++)?+)?+(?P<dot>\.?+)""")
LINE_ITEM = re.compile(r"#|[-*•]\s|\d{1,3}[.)]\s")
AFTER_LINE_BREAK = re.compile(r"\n(?<!\n\n)[ \t]*+(\S.?)")
LIST_START = re.compile(r"[\n:.!?]\s{0,8}+(?P<mark>\(?+(?P<item>[1aA])(?P<close>\.\)|[.)]))[ \t]")
APOSTROPHE = re.compile("['’]")
TOUCHING = re.compile(r".*[)\]][(\[]")
ACRONYM = re.compile(r"[^\W\d_]{1,2}(?:\.-?[^\W\d_]{1,2})+|Ph\.?D")
TIME = re.compile(r"[\d:]*[ap]\.m", re.IGNORECASE)
TIME_OPENING = re.compile(r"(?:At|By|Around|About|Before|After|Until|Since|From|On)\s")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STARTERS = _words(
    """a an the this that these those it he she they we you i my his her their our its your there here what who whom
    whose when where why how which in on at by for from with after before as if while although though since because but
    and or so then thus hence therefore however moreover furthermore meanwhile did do does is are was were can could
    would should have has had not no yes some many most few several each every both all none one two three another
    other others also today yesterday tomorrow later now once during until under over between among through despite
    unlike like let please next first second finally instead overall such only even just soon find calculate
    determine suppose assume given consider note see"""
)
TITLES = _words(  # never the end
    """mr mrs dr prof messrs mme mlle lt sgt capt cmdr Ms Mx Gen Rep Sen Gov Maj Col Adm Rev Hon Pres Supt Insp Brig Bvt
    Cpl Pvt Lieut Cdr Cdre Comdr Ens Amb Atty Asst Feat vs v viz cf e.g i.e"""
)
IN_BRACKETS = _words(  # never the end right behind an opening bracket: "(feat. Ann)", "(lit. House)"
    "feat ft prod dir orig trans transl lit pron abbr aka incl esp est ed eds ex illus narr arr comp"
)
NUMBERED = _words(  # not the end before a number; "5 p. 3", "No. II"
    """no nos n° nº nr p pp l ll fig figs eq eqs vol vols ch chap pt pl ex op art sec sect para ver approx ca c est b d
    r fl ed"""
)
PERHAPS = _words(  # the end only before a starter
    """Com co inc ltd corp llc plc bros assn dept univ govt jr sr esq st ave blvd rd hwy bldg mt al Ft
    Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Mon Tue Tues Wed Thu Thur Thurs Fri
    Ala Ariz Ark Calif Colo Conn Fla Ga Ill Ind Kan Ky Md Mich Minn Mo Mont Neb Nev Okla Ore Pa Penn Tenn Tex Va Vt Wash
    Wis Wyo"""
)
UNFINISHED = _words(
    "a an the of to in on at by for from with and or but as that than is are was were be his her its their"
)
STARTING_WORD = re.compile(rf"(?:{'|'.join(sorted(word.capitalize() for word in STARTERS))})\b")
AFTER_TIME = _words(  # "6 p.m. Eastern": not the end
    """ET EST EDT CT CST CDT MT MST MDT PT PST PDT UTC GMT CET Eastern Central Mountain Pacific
    Monday Tuesday Wednesday Thursday Friday Saturday Sunday"""
)


def rule_starts(text: str) -> list[int]:
    """Offsets at which sentences begin, ascending; the first one is 0."""
    starts = [0]
    items = _list_items(text)
    uncased = text.islower()  # then a lower-case letter is no evidence
    wrapped: bool | None = None
    for found in MARK.finditer(text):
        kind = found.lastgroup
        end = found.end()
        start = starts[-1]
        if kind == "bullet":
            cut = found.start() if text[found.start() - 1 : found.start()].isspace() else 0
        elif kind == "line":
            if wrapped is None:
                wrapped = _is_wrapped(text)
            cut = end if _line_break_ends(text, found, wrapped) else 0
        elif kind == "after_wide":
            inside_quote = found["after_wide"] and not text[end : end + 1].isspace()
            decimal = text[found.start() - 1 : found.start()].isdigit() and text[end : end + 1].isdigit()
            cut = 0 if inside_quote or decimal else end
        elif not text[end : end + 1].isspace():
            continue
        elif kind == "after_hard":
            cut = end if _can_begin(text, end, uncased) else 0
        else:
            cut = _after_dots(text, found, start, items, uncased)
        if cut > start:
            starts.append(_past_closing_quote(text, start, cut))
    return sorted({*starts, *items}) if items else starts


def _after_dots(text: str, found: re.Match[str], start: int, items: set[int], uncased: bool) -> int:
    """The end of a sentence at one or more full stops, or 0 if it goes on."""
    end = found.end()
    dots = found["dots"]
    if not _can_begin(text, end, uncased):
        return 0
    if dots == ".":
        return end if _full_stop_ends(text, found.start(), end, start, items) else 0
    before = text[found.start() - 1 : found.start()]
    if before in ("[", "(") and found["after_dots"]:  # [...]
        return 0
    count = dots.count(".") + 3 * dots.count("…")
    after_space = before.isspace()
    if " " in dots and not after_space and count > 3:  # "word. . . . Next": one full stop, then an ellipsis
        return found.start() + 1
    if (
        after_space and count == 3
    ):  # an omission, or a pause that a new sentence may follow; a mere "I" does not show one
        following = NEXT.match(text, end)
        assert following is not None
        return 0 if " " in dots or APOSTROPHE.split(following["word"] or "", maxsplit=1)[0] == "I" else end
    return end


def _full_stop_ends(text: str, dot: int, end: int, start: int, items: set[int]) -> bool:
    """Whether the single full stop at `dot` ends a sentence; white space and no lower-case letter follow."""
    before = text[max(start, dot - LOOK_BACK) : dot].split()
    if not before or text[dot - 1].isspace():
        return True
    written = TOUCHING.sub("(", before[-1])  # "Holt)(Feat" is "(Feat"
    word = written.lstrip("\"'“‘«([{*_•⁃‣▪◦●—–-")
    if (word.isdigit() and len(word) <= 3) or (len(word) == 1 and word.isalpha() and word != "I"):
        at = dot - len(word)
        opens = at - start <= LOOK_BACK and not text[start:at].strip(" \t\n\r([•⁃‣▪◦●")
        if opens or dot - len(written) in items:
            return False  # "1. Mix", "B. False": the mark of a list
    if len(word) > 20 or (word.isdigit() and len(word) > 1):
        return True
    following = NEXT.match(text, end)
    assert following is not None
    next_word = following["word"] or ""
    initial_next = len(next_word) == 1 and following["dot"]  # in "J. A. Lee" the next word is not the article
    starter = not initial_next and APOSTROPHE.split(next_word.lower(), maxsplit=1)[0] in STARTERS
    known = {word} if len(word) == 1 else {word, word.lower()}
    if known & TITLES or (written[: -len(word)].endswith(("(", "[")) and word.lower() in IN_BRACKETS):
        return False
    if known & NUMBERED:
        return not _number_follows(text, end)
    if known & PERHAPS:
        return starter
    if TIME.fullmatch(word):
        early = dot - start <= LOOK_BACK and TIME_OPENING.match(text[start:dot].lstrip())  # "At 5 p.m. Ann left."
        return not early and next_word not in AFTER_TIME
    if ACRONYM.fullmatch(word):
        return starter
    if len(word) == 1 and word.isupper():
        named = len(before) > 1 and before[-2][0].isupper()
        again = len(before) > 1 and before[-2].lower() == next_word.lower()  # "Ann took box A. Box B": no name
        return starter or not next_word or again or (word == "I" and not named)
    return True


def _number_follows(text: str, end: int) -> bool:
    following = text[end : end + 8].split()
    first = following[0].strip("([#.,;:)]'\"°") if following else ""
    return first[:1].isdigit() or bool(first and set(first) <= set("IVXLC") and first != "I")


def _can_begin(text: str, end: int, uncased: bool) -> bool:
    """Whether what follows the white space at `end` may open a sentence; at the end of the text nothing does."""
    found = NEXT.match(text, end)
    assert found is not None
    word = found["word"]
    if word is None:
        following = text[found.end() : found.end() + 1]
        return bool(following) and following not in ",;:!?.)]}%"
    return uncased or not word[0].islower() or word[1:2].isupper()  # iPhone


def _line_break_ends(text: str, found: re.Match[str], wrapped: bool) -> bool:
    """Whether a run of white space that begins with a line break ends a sentence. Blank lines always do."""
    space = found["line"]
    end = found.end()
    if end == len(text):
        return False
    breaks = max(space.count("\n"), space.count("\r"))
    if breaks != 1 or LINE_ITEM.match(text, end):
        return True
    line = text[max(0, found.start() - LOOK_BACK) : found.start()].split()
    last_word = line[-1] if line else ""
    unfinished = last_word in UNFINISHED or last_word.endswith(",")
    if wrapped or (unfinished and not STARTING_WORD.match(text, end)):
        return False
    return not _goes_on(text[end : end + 2]) or last_word.endswith((".", "!", "?", ":"))


def _is_wrapped(text: str) -> bool:
    """Whether lines are wrapped at a width: most lines then go on in lower case."""
    lines = AFTER_LINE_BREAK.findall(text)
    return 2 * sum(map(_goes_on, lines)) > len(lines)


def _goes_on(line: str) -> bool:
    """Whether a line that begins like this may go on with a sentence: a lower-case word, not the x of "x = 5"."""
    return line[0].islower() and (line[1:2].isalpha() or line[:2] == "a ")


def _list_items(text: str) -> set[int]:
    """Starts of the items of lists within a line: "Steps: 1) Mix 2) Bake", "a. Mix b. Bake"."""
    items: set[int] = set()
    for found in LIST_START.finditer("\n" + text):
        item = found["item"]
        at = found.end() - 1
        while at:
            item = str(int(item) + 1) if item.isdigit() else chr(ord(item) + 1)
            sign = f" {found['mark'].replace(found['item'], item)} "
            position = text.find(sign, at - 1, at + LIST_REACH)
            at = position + len(sign) if position >= 0 and position + 1 not in items else 0
            if at:
                items |= {found.start("mark") - 1, position + 1}
    return items


def _past_closing_quote(text: str, start: int, cut: int) -> int:
    """In tokenised text (`He said " Go . " Then`), move a cut past a straight quotation mark that closes one."""
    following = text[cut : cut + 3]
    if following[:2] != ' "' or not following[2:].isspace():
        return cut
    return cut + 2 if text.count('"', start, cut) % 2 else cut
