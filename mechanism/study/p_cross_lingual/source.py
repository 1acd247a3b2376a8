"""What the article "Transformer Q102" prints: numbers, none with a data set or an interval, and parameter formulas."""

import pandas as pd
import sympy as sp

SOURCE = pd.DataFrame(
    [
        ("P2", "share of the parameters tuned: s = 2, t = 3, L = 24", "share", 1 / 5),
        ("P4", "growth of a dense model from 10 to 100 languages", "times", 10),
        ("P4", "growth of an MoE from 10 to 100 languages", "times", 1.5),
        ("P5", "parameters that a new language needs", "percent", 1),
        ("P6", "earlier languages kept better by frozen experts", "percent", 30),
        ("P7", "language experts picked better by a gate that knows the language", "percent", 25),
        ("P8", "tokens mis-routed by errors in language identification", "percent", 12),
        ("P8", "mis-routing without redundant experts", "percent", 8),
        ("P8", "mis-routing with redundant experts", "percent", 3),
        ("P9", "steps until an expert of a rare language is warm", "thousands", 100),
        ("P10", "load of English over the mean", "times", 3),
        ("P10", "time that a balance loss costs", "percent", 5),
        ("P11", "gain from distilling a dense model into the experts", "percent", 40),
        ("P12", "dedicated experts saved by families", "percent", 30),
        ("P14", "communication saved by pinned experts", "percent", 40),
        ("P15", "memory saved by 8-bit storage", "percent", 50),
        ("P15", "speed gained by 8-bit storage", "percent", 25),
    ],
    columns=["claim", "quantity", "unit", "value"],
)
"""Claims P1, P3, P13, P16 and P17 are about formulas, a sketch of a proof, named facts and code."""

LAYERS, LAYER, LANGUAGES = sp.symbols("L P n", positive=True)
EXPERTS, ACTIVE, EXPERT = sp.symbols("m k P_e", positive=True)
OWN, SHARED, ROUTER = sp.symbols("s t r", positive=True)

PRINTED = {
    "held, a model per language": LAYERS * LAYER * LANGUAGES,
    "held, MoE": EXPERTS * EXPERT,
    "active, MoE": ACTIVE * EXPERT,
}
"""P is the size of a layer, P_e that of an expert."""

TUNED_PRINTED = LANGUAGES * (OWN + SHARED) * EXPERT
"""Tuned parameters of MoE: s experts of a language's own and t shared ones, for each language."""

EXAMPLE = {OWN: 2, SHARED: 3, LAYERS: 24}
"""With which the article has a fifth of the parameters tuned."""
