"""Terms of the glossary where a page uses them first, and symbols, with their definition to hover, focus or tap."""

import re
from typing import Any

from docutils import nodes

# Words that a page uses in their ordinary sense as well; `{term}` links them where they are meant.
_PLAIN = {
    "batch", "claim", "criterion", "domain", "expert", "head", "lang", "layer", "model", "pos", "record", "router",
    "rule", "run", "slot", "stale", "stamp", "task", "token", "verdict",
}  # fmt: skip
_KEPT = (nodes.reference, nodes.literal, nodes.title, nodes.raw, nodes.math, nodes.FixedTextElement, nodes.term)


def definitions(app: Any) -> dict[str, tuple[str, str]]:
    """By term in small letters: the id of its entry and what it says."""
    if not hasattr(app.env, "mechanism_terms"):
        found: dict[str, tuple[str, str]] = {}
        whole = app.env.get_doctree("glossary") if "glossary" in app.env.found_docs else nodes.document(None, None)
        for item in whole.findall(nodes.definition_list_item):
            (definition,) = item.findall(nodes.definition)
            for term in item.findall(nodes.term):
                found[term.astext().lower()] = (term["ids"][0], " ".join(definition.astext().split()))
        app.env.mechanism_terms = found
    return app.env.mechanism_terms


def link_terms(app: Any, doctree: nodes.document, page: str) -> None:
    """Give each link to the glossary its definition, and make one of the first mention of every other term."""
    if page == "glossary" or app.builder.format != "html":
        return
    known = definitions(app)
    if not known:
        return
    by_id = {place: term for term, (place, _) in known.items()}
    linked = set()
    for link in doctree.findall(nodes.reference):
        term = by_id.get(link.get("refid") or link.get("refuri", "").partition("#")[2])
        if term:
            _describe(link, known[term][1])
            linked.add(term)
    words = "|".join(re.escape(term) for term in sorted(known, key=len, reverse=True) if term not in _PLAIN)
    pattern = re.compile(rf"\b({words})(?:s|es)?\b", re.IGNORECASE)
    uri = app.builder.get_relative_uri(page, "glossary")
    for text in [text for text in doctree.findall(nodes.Text) if _is_prose(text)]:
        parts, end = [], 0
        for match in pattern.finditer(text.astext()):
            term = match[1].lower()
            if term not in linked:
                linked.add(term)
                link = nodes.reference(match[0], match[0], internal=True, refuri=f"{uri}#{known[term][0]}")
                _describe(link, known[term][1])
                parts += [nodes.Text(text.astext()[end : match.start()]), link]
                end = match.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text.astext()[end:])])


def symbols(app: Any) -> dict[tuple[str, str], str]:
    """What a symbol means on a page, by the page's name and the symbol in LaTeX: the table of the glossary."""
    if not hasattr(app.env, "mechanism_symbols"):
        found: dict[tuple[str, str], str] = {}
        whole = app.env.get_doctree("glossary") if "glossary" in app.env.found_docs else nodes.document(None, None)
        tables = [table for table in whole.findall(nodes.table) if "symbols" in table["classes"]]
        for row in (row for table in tables for body in table.findall(nodes.tbody) for row in body.findall(nodes.row)):
            symbol, page, meaning = (" ".join(entry.astext().split()) for entry in row.findall(nodes.entry))
            found[page, symbol] = meaning
        app.env.mechanism_symbols = found
    return app.env.mechanism_symbols


def link_symbols(app: Any, doctree: nodes.document, page: str) -> None:
    """Give each symbol in the text its meaning, and list below an equation what its symbols mean."""
    own = {symbol: told for (of, symbol), told in symbols(app).items() if of == page.rpartition("/")[2]}
    if page == "glossary" or app.builder.format != "html" or not own:
        return
    uri = f"{app.builder.get_relative_uri(page, 'glossary')}#symbols"
    for math in list(doctree.findall(nodes.math)):
        told = own.get(" ".join(math.astext().split()))
        if told and not isinstance(math.parent, nodes.reference):
            link = nodes.reference("", "", math.deepcopy(), internal=True, refuri=uri)
            _describe(link, told)
            math.parent.replace(math, link)
    for block in list(doctree.findall(nodes.math_block)):
        used = [symbol for symbol in own if _stands_in(symbol, block.astext())]
        if used:
            block.parent.insert(block.parent.index(block) + 1, _legend({symbol: own[symbol] for symbol in used}))


def _stands_in(symbol: str, equation: str) -> bool:
    before = "" if symbol.startswith("\\") else r"(?<![A-Za-z\\])"
    return re.search(rf"{before}{re.escape(symbol)}(?![A-Za-z])", equation) is not None


def _legend(meanings: dict[str, str]) -> nodes.container:
    """A closed list of symbols."""
    told = nodes.paragraph()
    for number, (symbol, meaning) in enumerate(meanings.items()):
        told += [nodes.Text("; " if number else ""), nodes.math(symbol, symbol), nodes.Text(f" {meaning}")]
    parts = (nodes.raw("", text, format="html") for text in ("<details><summary>symbols</summary>", "</details>"))
    opened, closed = parts
    return nodes.container("", opened, told, closed, classes=["symbols"])


def _describe(link: nodes.Element, definition: str) -> None:
    link["reftitle"] = definition
    link["classes"] = [*link.get("classes", []), "term"]


def _is_prose(text: nodes.Text) -> bool:
    """Whether it stands in a paragraph or a caption, and not in code, a heading or a link."""
    above, found = text.parent, False
    while above is not None and not isinstance(above, nodes.document):
        if isinstance(above, _KEPT):
            return False
        found = found or isinstance(above, nodes.paragraph | nodes.caption)
        above = above.parent
    return found


def forget(app: Any, env: Any, docnames: list[str]) -> None:
    """The glossary may have changed since the last build."""
    for kept in ("mechanism_terms", "mechanism_symbols"):
        vars(env).pop(kept, None)


def setup(app: Any) -> dict[str, bool]:
    app.connect("env-before-read-docs", forget)
    app.connect("doctree-resolved", link_terms)
    app.connect("doctree-resolved", link_symbols)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
