"""What arXiv 2601.10159 on domain and driver experts, and its critic arXiv 2606.10703, report in numbers."""

import pandas as pd

NO_NUMBER = "text, no number"
"""Of D1 to D4 and D8; D6 is a picture. Neither equations nor tables of arXiv 2601.10159 could be recovered."""
SOURCE = pd.DataFrame(
    [
        ("D5", "gain in accuracy, domain experts re-weighted", "points", 2.08, "2601.10159, by reviews of it"),
        ("D5", "gain in accuracy, driver experts re-weighted", "points", 3.00, "2601.10159, by reviews of it"),
        ("D7", "bound on all metrics, at single tokens", "Cohen's d", 0.23, "2606.10703v2, abstract"),
        ("D7", "the same, as first printed", "Cohen's d", 0.17, "2606.10703v1, abstract"),
        ("D7", "gate weight of a token, last layer of OLMoE", "Cohen's d", 0.231, "2606.10703v1 and v2, abstracts"),
    ],
    columns=["claim", "quantity", "unit", "value", "place"],
)
"""The abstract of arXiv 2601.10159 calls its gains significant and gives no number: both are means of three models, as
reviews report them. arXiv 2606.10703 bounds 60 pairs of metric and layer in three models, and calls none
reliably positive."""
