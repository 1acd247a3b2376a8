"""Languages of the report: codes, scripts, families and how much of each the embedded model may read.

Codes are BCP 47. Names come from langcodes; script and family are stated here because they enter the
analyses as confounders (family: Glottolog 5 top level, with the branch for Indo-European).
"""

from dataclasses import dataclass

import langcodes


@dataclass(frozen=True)
class Language:
    """One language: `code` (BCP 47), `script` (ISO 15924), `family`, `branch`, and `train_chars`, the budget of
    training text in characters (None: everything there is; 0: never trained on)."""

    code: str
    script: str
    family: str
    branch: str
    train_chars: int | None

    @property
    def name(self) -> str:
        """English display name, from langcodes."""
        return langcodes.get(self.code).display_name()

    @property
    def resource(self) -> str:
        """`high` (over 2 M characters of training text), `mid`, `low` (under 200 k) or `unknown` (none)."""
        if self.train_chars is None or self.train_chars > 2_000_000:
            return "high"
        if self.train_chars == 0:
            return "unknown"
        return "low" if self.train_chars < 200_000 else "mid"


_TABLE = """
en Latn Indo-European  Germanic       all
de Latn Indo-European  Germanic       all
fr Latn Indo-European  Romance        all
es Latn Indo-European  Romance        all
it Latn Indo-European  Romance        4000000
ru Cyrl Indo-European  Slavic         3000000
vi Latn Austroasiatic  Vietic         1500000
tl Latn Austronesian   Philippine     1000000
el Grek Indo-European  Greek          800000
tr Latn Turkic         Oghuz          500000
ar Arab Afro-Asiatic   Semitic        400000
id Latn Austronesian   Malayic        300000
hi Deva Indo-European  Indo-Aryan     200000
ja Jpan Japonic        Japanese       120000
fa Arab Indo-European  Iranian        80000
zh Hans Sino-Tibetan   Sinitic        50000
ko Kore Koreanic       Korean         40000
km Khmr Austroasiatic  Khmer          25000
om Latn Afro-Asiatic   Cushitic       20000
sw Latn Atlantic-Congo Bantu          0
yo Latn Atlantic-Congo Yoruboid       0
ha Latn Afro-Asiatic   Chadic         0
so Latn Afro-Asiatic   Cushitic       0
"""


def _row(line: str) -> Language:
    code, script, family, branch, chars = line.split()
    return Language(code, script, family, branch, None if chars == "all" else int(chars))


LANGUAGES: dict[str, Language] = {language.code: language for language in map(_row, _TABLE.strip().splitlines())}
UNKNOWN = tuple(code for code, language in LANGUAGES.items() if language.train_chars == 0)
TRAINED = tuple(code for code in LANGUAGES if code not in UNKNOWN)


def language(code: str) -> Language:
    """The language of a code.

    >>> language("sw").name, language("sw").family, language("sw").resource
    ('Swahili', 'Atlantic-Congo', 'unknown')

    Raises:
        KeyError: the code is not in the table; the message lists the known ones.
    """
    if code not in LANGUAGES:
        raise KeyError(f"unknown language {code!r}: known are {' '.join(LANGUAGES)}")
    return LANGUAGES[code]
