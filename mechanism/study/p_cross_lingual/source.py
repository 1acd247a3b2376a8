"""What "Transformer Q102" printed: the parameter formulas of its second section, and its example."""

import sympy as sp

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
