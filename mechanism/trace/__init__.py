"""Watch and edit routing in any mixture-of-experts language model, and prove it.

with attach(model) as trace:
    model(**batch)
trace.dataset()
"""

from .capture import Trace
from .checks import attach, check, routers
from .contributions import expert_means, slot_outputs
from .errors import (
    AttachError,
    CaptureError,
    ContractError,
    DenseModelError,
    InterventionError,
    RouterError,
    TraceError,
)
from .inside import Inside
from .interventions import (
    Ablate,
    Activate,
    Deactivate,
    Forbid,
    ForceSelection,
    Intervention,
    ScaleWeight,
    SoftSteer,
    from_json,
    pairs,
    to_json,
)
from .replay import Replay
from .route import Route
from .served import Served, decode_routed_experts
from .sites import Site, find_sites
from .stats import RoutingStats

__all__ = [
    "Ablate",
    "Activate",
    "AttachError",
    "CaptureError",
    "ContractError",
    "Deactivate",
    "DenseModelError",
    "Forbid",
    "ForceSelection",
    "Inside",
    "Intervention",
    "InterventionError",
    "Replay",
    "Route",
    "RouterError",
    "RoutingStats",
    "ScaleWeight",
    "Served",
    "Site",
    "SoftSteer",
    "Trace",
    "TraceError",
    "attach",
    "check",
    "decode_routed_experts",
    "expert_means",
    "find_sites",
    "from_json",
    "pairs",
    "routers",
    "slot_outputs",
    "to_json",
]
