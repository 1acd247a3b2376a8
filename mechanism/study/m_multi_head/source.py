"""What the source printed about multi-head MoE (arXiv 2411.16205v3): perplexity without seeds or intervals."""

import numpy as np
import pandas as pd

SETS = ("RedPajama", "Wiki", "C4")
# Tables 1, 2 and 3 after 100,000 steps, and table 5, whose full cell equals table 1 after 50,000 steps.
_PRINTED: dict[tuple[str, str], tuple[float, float, float]] = {
    ("plain", "dense"): (12.13, 11.58, 16.21),
    ("plain", "sparse"): (10.90, 9.68, 14.35),
    ("plain", "fine_grained"): (10.74, 9.38, 13.97),
    ("plain", "heads2"): (10.70, 9.26, 13.80),
    ("plain", "heads3"): (10.51, 9.18, 13.63),
    ("shared", "sparse"): (10.66, 9.44, 14.30),
    ("shared", "fine_grained"): (10.41, 9.15, 13.78),
    ("shared", "heads2"): (10.36, 8.79, 13.66),
    ("shared", "heads3"): (10.28, 8.72, 13.49),
    ("bitnet", "dense"): (30.04, 24.75, 33.55),
    ("bitnet", "sparse"): (26.78, 21.54, 29.73),
    ("bitnet", "fine_grained"): (26.68, 21.42, 29.50),
    ("bitnet", "heads2"): (26.59, 21.11, 29.27),
    ("bitnet", "heads3"): (26.47, 21.06, 29.14),
    ("ablation", "heads2_none"): (11.97, 10.40, 15.52),
    ("ablation", "heads2_head"): (11.74, 10.18, 15.17),
    ("ablation", "heads2_merge"): (11.84, 10.27, 15.36),
    ("ablation", "heads2"): (11.60, 10.11, 15.11),
}

ADDED = pd.DataFrame(
    [(11.87, 11.84), (11.68, 11.67), (11.71, 11.46)],
    index=["sparse", "fine_grained", "heads2"], columns=["without", "with"],
)  # fmt: skip
"""Table 4: perplexity on RedPajama without and with head and merge layers."""


def printed() -> pd.DataFrame:
    """Perplexity by (block, variant), a column for each of the source's test sets."""
    return pd.DataFrame.from_dict(_PRINTED, orient="index", columns=list(SETS)).set_index(
        pd.MultiIndex.from_tuples(list(_PRINTED), names=["block", "variant"])
    )


def printed_differences(block: str, reference: str) -> pd.DataFrame:
    """Differences in log perplexity from a variant of the same block, by variant and test set."""
    logs = np.log(printed().loc[block])
    return logs - logs.loc[reference]
