"""Error rates of the rules: what each would say, how often, where the truth is known.

Evidence is drawn as it comes about in the report, with the same estimators of intervals and as many units, once where
the effect is absent and once where it is what the source says; the claim's own rule judges it. What the simulation
assumes stands in `data/configs/error_rates.yaml`: units are independent and normal, and as scattered as today's record
says.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from ..corpus.library import DATA
from ..measure.correlation import Correlation
from ..measure.evidence import Evidence
from ..measure.paired import SeedMean
from ..measure.statistics import ClusterBootstrap
from .claims import Claim, ClaimError, load_claims
from .files import RESULTS, read_yaml
from .record import evidence_of, read_records
from .verdicts import Verdict

DESIGNS = DATA / "configs" / "error_rates.yaml"
RECORD = DATA / "baselines" / "error_rates.csv"
UNITS = ("seeds", "means", "languages")
DRAWS = 50  # random sets behind a drawn null, as in the chapters
_BOOTSTRAP = ClusterBootstrap(n_boot=500)
_CORRELATION = Correlation("pearson", n_boot=300, n_perm=300)


@dataclass(frozen=True)
class Design:
    """How evidence of a claim comes about.

    Attributes:
        units: `seeds` (Student's interval over few), `means` (percentile bootstrap over many) or `languages` (a
            correlation with its bootstrap and permutations).
        absent, source: true effect where there is none, and where the source is right, in the estimate's unit.
        n: units; None for those of the record.
        against: `drawn`, the 95th percentile of effects of random sets; a number; None where the rule asks for none.
    """

    units: str
    absent: float
    source: float
    n: int | None = None
    against: float | str | None = None

    def __post_init__(self) -> None:
        if self.units not in UNITS:
            raise ClaimError(f"a design has units {self.units!r}: known are {', '.join(UNITS)}")

    def scatter(self, found: Evidence, n: int) -> float:
        """Standard deviation of a unit, for intervals as wide as the record's; of one model, of `n` documents."""
        reach = t.ppf(0.975, found.n - 1) if self.units == "seeds" else norm.ppf(0.975)
        return float((found.high - found.low) / 2 / reach * (found.n if found.n > 1 else n) ** 0.5)

    def draw(self, truth: float, sd: float, n: int, rng: np.random.Generator) -> Evidence:
        """Evidence from `n` units about a true effect."""
        if self.units == "languages":
            first, noise = rng.standard_normal((2, n))
            found = _CORRELATION(first, truth * first + (1 - truth**2) ** 0.5 * noise)
            return found._replace(null=self._null(0.0, rng))
        values = rng.normal(truth, sd, n)
        found = SeedMean()(values) if self.units == "seeds" else _BOOTSTRAP(values)
        error = max((found.high - found.low) / 2 / norm.ppf(0.975), 1e-12)
        p = float(2 * norm.sf(abs(found.estimate - self.absent) / error))
        return found.against(self._null(sd / n**0.5, rng), p)

    def _null(self, error: float, rng: np.random.Generator) -> float:
        if self.against != "drawn":
            return np.nan if self.against is None else float(self.against)
        return float(np.quantile(rng.normal(self.absent, error, DRAWS), 0.95))


def load_designs(path: Path = DESIGNS) -> tuple[dict[str, Design], dict[str, str]]:
    """The designs by claim, and the reasons why other claims have none.

    Raises:
        ClaimError: a design is incomplete or has unknown units.
    """
    payload = read_yaml(path)
    try:
        designs = {claim: Design(**entry) for claim, entry in payload["designs"].items()}
    except TypeError as error:
        raise ClaimError(f"{path.name}: {error}") from None
    return designs, {claim: why for why, claims in payload["without"].items() for claim in claims}


def rates(claim: Claim, design: Design, found: Evidence, runs: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How often the rule gives which verdict: one row for `absent`, one for `source`.

    Columns `claim`, `truth`, `effect`, `units`, `n`, `runs`, a share for each verdict that a rule can give, `digest`.
    """
    rng, n = np.random.default_rng(seed), design.n or found.n
    sd, rows = design.scatter(found, n), []
    for truth in ("absent", "source"):
        effect = getattr(design, truth)
        verdicts = [claim.verdict(design.draw(effect, sd, n, rng)) for _ in range(runs)]
        shares = {str(verdict): verdicts.count(verdict) / runs for verdict in list(Verdict)[:-1]}
        head: dict[str, Any] = {"claim": claim.id, "truth": truth, "effect": effect, "units": design.units, "n": n}
        rows.append({**head, "runs": runs, **shares, "digest": claim.digest})
    return pd.DataFrame(rows)


def simulate(runs: int = 1000) -> pd.DataFrame:
    """`rates` of every claim with a design and recorded evidence."""
    claims, (designs, _) = load_claims(), load_designs()
    known = {name: evidence_of(payload) for name, payload in read_records(RESULTS).items()}
    found = [(claims[name], design, known.get(name)) for name, design in designs.items()]
    return pd.concat([rates(claim, design, one, runs) for claim, design, one in found if one], ignore_index=True)


def rates_markdown() -> str:
    """The recorded error rates as a table for the page on method.

    Raises:
        ClaimError: there is no record, or a claim has changed since.
    """
    if not RECORD.exists():
        raise ClaimError("the error rates of the rules are not recorded: run `mechanism bench rules`")
    table, claims = pd.read_csv(RECORD), load_claims()
    if stale := sorted({row.claim for row in table.itertuples() if claims[row.claim].digest != row.digest}):
        raise ClaimError(f"error rates of {', '.join(stale)} are of older rules: run `mechanism bench rules`")
    wide = table.pivot(index="claim", columns="truth").loc[list(dict.fromkeys(table["claim"]))]
    lines = [
        "| claim | units | false *replicated* | source's effect | then *replicated* or *partly* | then *refuted* |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    for claim, row in wide.iterrows():
        held = row["replicated", "source"] + row["partly", "source"]
        lines.append(
            f"| {claim} | {row['n', 'source']} {row['units', 'source']} | {row['replicated', 'absent']:.1%} "
            f"| {row['effect', 'source']:g} {claims[str(claim)].unit} | {held:.0%} | {row['refuted', 'source']:.1%} |"
        )
    return "\n".join(lines)
