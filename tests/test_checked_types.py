"""The hooks of conftest.py: shapes are checked where annotations tell them, types in every room."""

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import TypeCheckError

from mechanism.corpus.library import committed
from mechanism.measure.divergence import routing_divergence
from mechanism.models.work import Work
from mechanism.study.d_domains.search import places
from mechanism.trace.seam import Selection


def test_dimensions_of_one_name_have_to_agree():
    p = np.full((2, 3, 4), 0.25)
    routing_divergence(p, p)
    with pytest.raises(TypeCheckError, match="layer"):
        routing_divergence(p, p[:, :2])


@pytest.mark.parametrize(
    "call",
    [
        lambda: committed(1),
        lambda: Work("routes", "many"),  # type: ignore[arg-type]
        lambda: places([1, 0]),  # type: ignore[arg-type]
        lambda: Selection(force=[0]),  # type: ignore[arg-type]
        lambda: Selection().met(None),  # type: ignore[arg-type]
    ],
    ids=["corpus", "models, named tuple", "study", "trace, dataclass", "trace, method"],
)
def test_types_are_checked_in_rooms_without_shapes(call):
    with pytest.raises(BeartypeCallHintParamViolation):
        call()
