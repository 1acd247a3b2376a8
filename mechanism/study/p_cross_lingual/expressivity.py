"""Whether experts span what a language needs: a counter-example, the condition, and how well subsets approximate.

The article claims that for the function space H_i of any language there are experts E_i with H_i in span(E_i). A span
of m functions has at most m dimensions. One-hidden-layer ReLU functions of two or more inputs have infinitely many:
relu(a.x) for pairwise different directions a are linearly independent. So no finite set of experts will do for a whole
space, and any function whose direction none of the experts has is a counter-example.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import sympy as sp
import torch
from scipy.special import comb, eval_gegenbauer, roots_chebyt, roots_gegenbauer
from sklearn.linear_model import orthogonal_mp_gram
from torch import Tensor

from ...nn.experts import Experts
from ...nn.feedforward import DenseConfig

_X, _Y = sp.symbols("x_1 x_2", real=True)
RIDGES = (_X, -_X, _Y, -_Y)
TARGET = _X + _Y
"""Counter-example in two dimensions: experts relu(a.x) of the four axis directions, a language's relu(x_1 + x_2)."""


def ridge_kernel(angle: sp.Expr) -> sp.Expr:
    """Mean over the unit circle of relu(a.x) relu(b.x) for unit vectors at an angle in [0, pi] (the arc-cosine kernel
    of order one; Cho and Saul 2009)."""
    return (sp.sin(angle) + (sp.pi - angle) * sp.cos(angle)) / (4 * sp.pi)


def counter_example() -> dict[str, sp.Expr]:
    """The distance of the target from the span of all four experts, exactly.

    Returns `rank` of the experts' Gram matrix, `rank with target`, and `distance`, relative to the target's norm, in
    the mean square over the unit circle (the functions are homogeneous, so that a disc gives the same).
    """
    directions = [sp.Matrix([sp.diff(r, _X), sp.diff(r, _Y)]) for r in (*RIDGES, TARGET)]
    unit = [v / v.norm() for v in directions]
    gram = sp.Matrix(5, 5, lambda i, j: ridge_kernel(sp.acos(unit[i].dot(unit[j]))))
    experts, cross = gram[:4, :4], gram[:4, 4]
    projected = sp.simplify((cross.T * experts.inv() * cross)[0])
    distance = sp.sqrt(sp.simplify(1 - projected / gram[4, 4]))
    return {"rank": sp.Integer(experts.rank()), "rank with target": sp.Integer(gram.rank()), "distance": distance}


def separating_points() -> tuple[sp.Matrix, sp.Matrix]:
    """A proof without integrals: values of the experts `(point, expert)` and of the target `(point, 1)` at five points
    where the system of equations has no solution."""
    relu = [sp.Max(0, r) for r in (*RIDGES, TARGET)]
    points = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, -1)]
    values = sp.Matrix([[f.subs({_X: x, _Y: y}) for f in relu] for x, y in points])
    return values[:, :4], values[:, 4]


def least_error(width: int, experts: int, degrees: int = 100) -> float:
    """The least relative error, root mean square over directions a, with which any `experts` functions with constant
    weights approximate relu(a.x) on the unit sphere of so many dimensions.

    No functions do better than those of the largest eigenvalues of the covariance (Karhunen and Loeve): here spherical
    harmonics; those of one degree have the same eigenvalue, by Funk and Hecke.
    """
    k = range(degrees)
    nodes, weights = roots_gegenbauer(2 * degrees, width / 2 - 1) if width > 2 else roots_chebyt(2 * degrees)
    weights, relu = weights / weights.sum(), np.maximum(nodes, 0)
    each = np.array([_zonal(width, degree, nodes) @ (weights * relu) for degree in k]) ** 2
    order = np.argsort(-each)
    taken = np.diff(np.minimum(np.cumsum(_harmonics(width, np.array(k))[order]), experts), prepend=0)
    return float(np.sqrt(max(0.0, 1 - taken @ each[order] / (weights @ relu**2))))


def _harmonics(width: int, degree: np.ndarray) -> np.ndarray:
    """Number of spherical harmonics of a degree."""
    return comb(degree + width - 1, degree) - np.where(degree > 1, comb(degree + width - 3, degree - 2), 0)


def _zonal(width: int, degree: int, cosine: np.ndarray) -> np.ndarray:
    """The zonal harmonic of a degree, 1 at the pole."""
    if width == 2:
        return np.cos(degree * np.arccos(cosine))
    return eval_gegenbauer(degree, width / 2 - 1, cosine) / eval_gegenbauer(degree, width / 2 - 1, 1.0)


@dataclass(frozen=True)
class SubsetCheck:
    """How well built experts approximate a built dense layer on standard normal tokens.

    Attributes:
        widths: token widths d; experts and the target are ReLU networks of inner width 2 d.
        sizes: subset sizes; tokens: drawn per width; repeats: fresh experts and targets; seed: of all draws.
    """

    widths: tuple[int, ...] = (2, 4, 8, 16)
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    tokens: int = 256
    repeats: int = 5
    seed: int = 0

    def __call__(self) -> pd.DataFrame:
        """Relative root-mean-square error; one row per `width`, `experts`, `weights` and `repeat`.

        `weights` is `constant` for the best subset by orthogonal matching pursuit with a coefficient per expert, the
        same for all tokens (the span of the article), or `per token` for coefficients chosen anew for every token, the
        most that any router could do with so many experts.
        """
        rows = []
        for repeat in range(self.repeats):
            for width in self.widths:
                target, outputs = self._drawn(width, repeat)
                for size in self.sizes:
                    errors = {"constant": _span_error(outputs, target, size)}
                    errors["per token"] = _token_error(outputs[:size], target)
                    at = {"width": width, "experts": size, "repeat": repeat}
                    rows += [{**at, "weights": name, "error": error} for name, error in errors.items()]
        return pd.DataFrame(rows)

    def _drawn(self, width: int, repeat: int) -> tuple[np.ndarray, np.ndarray]:
        """Target `(token, d)` and outputs of all experts `(expert, token, d)`."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + 1_009 * repeat + width)
        count = max(self.sizes)
        experts = Experts(count, width, 2 * width, "relu").double()
        dense = DenseConfig(width, 2 * width, "relu").build().double()
        with torch.no_grad():
            for p in (*experts.parameters(), *dense.parameters()):
                p.normal_(generator=generator)
            x = torch.randn(self.tokens, width, dtype=torch.double, generator=generator)
            return dense(x).numpy(), every_expert(experts, x).numpy()


def every_expert(experts: Experts, x: Tensor) -> Tensor:
    """Output of every expert on every token, `(token, d) -> (expert, token, d)`."""
    count, rows = experts.num_experts, len(x)
    index = torch.arange(count).expand(rows, count).reshape(-1, 1)
    out = experts(x.repeat_interleave(count, 0), index, torch.ones_like(index, dtype=x.dtype))
    return out.view(rows, count, -1).transpose(0, 1)


def _span_error(outputs: np.ndarray, target: np.ndarray, size: int) -> float:
    columns = outputs.reshape(len(outputs), -1)
    norms = np.linalg.norm(columns, axis=1, keepdims=True)
    columns, flat = columns / norms, target.reshape(-1)
    coefficients = orthogonal_mp_gram(columns @ columns.T, columns @ flat, n_nonzero_coefs=size)
    return float(np.linalg.norm(flat - coefficients @ columns) / np.linalg.norm(flat))


def _token_error(outputs: np.ndarray, target: np.ndarray) -> float:
    basis = outputs.transpose(1, 2, 0)
    fitted = basis @ (np.linalg.pinv(basis) @ target[..., None])
    return float(np.linalg.norm(target - fitted[..., 0]) / np.linalg.norm(target))
