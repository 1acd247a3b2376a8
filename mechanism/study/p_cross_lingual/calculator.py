"""What a model for n languages holds, activates, tunes, stores and computes: dense, one per language, or MoE.

The formulas are symbolic, so that the table, the page's form and the surfaces are one truth; they are those of
`mechanism.nn.lm.LMConfig`, checked against built models.
"""

import html
from dataclasses import dataclass, fields

import pandas as pd
import sympy as sp

N, L, D, W, E, K, S, V, C, T = sp.symbols("n L d w E k s V c T", positive=True)
"""Languages, layers, width of a token, inner width of an expert, experts, experts per token, experts tuned for a new
language in each layer, vocabulary, width of an attention head, length of the sequence."""

_FRAME = V * D + L * (4 * D**2 + 2 * C) + (2 * L + 1) * D
_EXPERT = 3 * D * W
_DENSE = _FRAME + L * K * _EXPERT
_ATTENTION = 4 * T * D * L

_DENSE_FLOPS = 2 * (V * D + L * (4 * D**2 + K * _EXPERT)) + _ATTENTION

FORMULAS: dict[str, dict[str, sp.Expr]] = {
    "dense": {"total": _DENSE, "active": _DENSE, "tuned": _DENSE, "flops": _DENSE_FLOPS},
    "per language": {"total": N * _DENSE, "active": _DENSE, "tuned": _DENSE, "flops": _DENSE_FLOPS},
    "MoE": {
        "total": _FRAME + L * (E * _EXPERT + E * D),
        "active": _FRAME + L * (K * _EXPERT + E * D),
        "tuned": L * (S * _EXPERT + E * D),
        "flops": 2 * (V * D + L * (4 * D**2 + K * _EXPERT + E * D)) + _ATTENTION,
    },
}
"""Parameters `total`, `active` for a token, `tuned` for one more language, and FLOPs of a token's forward pass.

The dense layer is as wide as the k experts of a token together, so all three compute alike. A new language tunes the
whole dense model, a model of its own, or s experts a layer and the routers. Attention heads together are d wide; gates,
norms and the tied embedding are counted, biases there are none."""

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
SYMBOLS = {
    "languages": N, "layers": L, "hidden": D, "width": W, "experts": E, "top_k": K, "tuned_experts": S, "vocab": V,
    "head_dim": C, "length": T,
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """What the calculator is given.

    Attributes:
        languages; layers: decoder layers; hidden: width of a token; width: inner width of an expert; experts: routed,
            in each layer; top_k: experts per token; tuned_experts: tuned for a new language, in each layer; vocab;
            head_dim: of the attention, dividing `hidden`; length: of the sequence, for attention's FLOPs.

    Raises:
        ValueError: a size below one, more experts per token or tuned than there are, or a head that does not divide.
    """

    languages: int = 100
    layers: int = 24
    hidden: int = 1024
    width: int = 2048
    experts: int = 64
    top_k: int = 2
    tuned_experts: int = 2
    vocab: int = 250_112
    head_dim: int = 64
    length: int = 512

    def __post_init__(self) -> None:
        small = [f.name for f in fields(self) if getattr(self, f.name) < 1]
        if small:
            raise ValueError(f"{', '.join(small)} must be at least 1")
        for name in ("top_k", "tuned_experts"):
            if getattr(self, name) > self.experts:
                raise ValueError(f"{name} is {getattr(self, name)}; it cannot exceed the {self.experts} experts")
        if self.hidden % self.head_dim:
            raise ValueError(f"heads of width {self.head_dim} do not divide the width {self.hidden}")

    def values(self) -> dict[sp.Symbol, int]:
        """The sizes by symbol."""
        return {symbol: getattr(self, name) for name, symbol in SYMBOLS.items()}


def calculate(sizes: Sizes = Sizes()) -> pd.DataFrame:
    """One row per kind of model: `total`, `active` and `tuned` parameters, `flops` per token, and gibibytes that all
    parameters take at each dtype, scales of int8 left out."""
    rows = {}
    for kind, formulas in FORMULAS.items():
        found = {name: int(formula.subs(sizes.values())) for name, formula in formulas.items()}
        rows[kind] = found | {f"GiB {dtype}": found["total"] * size / 2**30 for dtype, size in BYTES.items()}
    return pd.DataFrame(rows).T.rename_axis("model")


def form(sizes: Sizes = Sizes()) -> str:
    """The calculator as an HTML element with its own script: no request leaves the page. The script's formulas are the
    same expressions, printed by sympy."""
    boxes = "".join(
        f'<label>{html.escape(field.replace("_", " "))} <input type="number" min="1" name="{symbol}" '
        f'value="{getattr(sizes, field)}"></label>'
        for field, symbol in SYMBOLS.items()
    )
    kinds = ",\n".join(
        f'"{kind}": [{", ".join(sp.jscode(formula) for formula in formulas.values())}]'
        for kind, formulas in FORMULAS.items()
    )
    heads = "".join(
        f"<th>{text}</th>" for text in ("model", "total", "active", "tuned", "FLOPs", *(f"GiB {b}" for b in BYTES))
    )
    arguments = ", ".join(map(str, SYMBOLS.values()))
    sizes_of = ", ".join(map(str, BYTES.values()))
    return f"""<form id="calculator" class="calculator" onsubmit="return false"
aria-label="Parameter calculator">{boxes}
<table class="dataframe"><thead><tr>{heads}</tr></thead><tbody></tbody></table><p role="status"></p></form>
<script>
(() => {{
  const form = document.getElementById("calculator");
  const formulas = ({arguments}) => ({{{kinds}}});
  const show = () => {{
    const [{arguments}] = [...form.querySelectorAll("input")].map((box) => Math.round(Number(box.value)));
    const wrong = [{arguments}].some((value) => !(value >= 1)) || k > E || s > E || d % c !== 0;
    form.querySelector("[role=status]").textContent = wrong
      ? "Sizes are at least 1, top k and tuned experts at most the experts, and the head divides the width." : "";
    form.querySelector("tbody").innerHTML = wrong ? "" : Object.entries(formulas({arguments})).map(([kind, found]) =>
      `<tr><th scope="row">${{kind}}</th>` + found.map((value) => `<td>${{value.toLocaleString("en")}}</td>`).join("")
      + [{sizes_of}].map((size) => `<td>${{(found[0] * size / 2 ** 30).toFixed(2)}}</td>`).join("") + "</tr>").join("");
  }};
  form.addEventListener("input", show);
  show();
}})();
</script>"""
