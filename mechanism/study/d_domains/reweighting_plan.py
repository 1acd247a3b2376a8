"""Which experts are re-weighted by how much, and on what."""

from dataclasses import dataclass
from types import MappingProxyType

from ...corpus.library import DOMAINS

NONE, DOMAIN, DRIVER = "none", "domain", "driver"
RANDOM = {DOMAIN: "random for domain", DRIVER: "random for driver"}


@dataclass(frozen=True)
class ReweightingConfig:
    """What is tried.

    Attributes:
        domains: corpora with a dev and a test split, each a task; languages: of the texts for side effects.
        items: choice items per task and split; count: pieces of text per domain to find experts with; texts: pieces per
            domain, and per language, for bits per byte.
        factors, shares: of the weight, and of the model's experts, to choose from on dev; doses: factors for
            dose-response.
        n_draws: matched random sets; drivers: ranking by causal effect, see `DRIVERS`; driver_texts: for it; seed.
    """

    domains: tuple[str, ...] = ("religion", "tech", *DOMAINS)
    languages: tuple[str, ...] | None = None
    items: int = 4
    count: int = 6
    texts: int = 2
    factors: tuple[float, ...] = (1.5, 2.0)
    shares: tuple[float, ...] = (0.05,)
    doses: tuple[float, ...] = (0.0, 4.0)
    n_draws: int = 2
    drivers: str = "ablation"
    driver_texts: int = 3
    seed: int = 0


PROFILES = MappingProxyType({
    "small": ReweightingConfig(),
    "full": ReweightingConfig(
        items=50, count=40, texts=20, factors=(0.5, 1.25, 1.5, 2.0, 3.0), shares=(0.025, 0.05, 0.1),
        doses=(0.0, 0.25, 0.5, 0.75, 1.25, 1.5, 2.0, 3.0, 4.0), n_draws=50, driver_texts=16,
    ),
})  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One re-weighting: which experts (`none`, `domain`, `driver`, or random ones that match either), the `share` of
    all experts they are, and the `factor` on their weight.

    Attributes:
        draw: number of the random set; of: whose domain experts, the task's own without it.
    """

    kind: str = NONE
    factor: float = 1.0
    share: float = 0.0
    draw: int = -1
    of: str = ""
