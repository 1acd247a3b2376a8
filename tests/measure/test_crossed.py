import numpy as np
import pytest

from mechanism.measure.agreement import Agreement
from mechanism.measure.crossed import CrossedVariance, crossed_components

DOCUMENTS, LANGS, EXPERTS = 20, 5, 12
decompose = CrossedVariance(n_perm=199)
agree = Agreement(n_perm=199)


def planted(domain=0.0, language=0.0, interaction=0.0, document=0.0, noise=0.1, seed=0, experts=EXPERTS):
    """Rates `(document, lang, expert)` of three domains with effects of these standard deviations, and their domains.

    Effects of a factor are drawn and then scaled, so that their sample variance is exactly the square."""
    rng = np.random.default_rng(seed)
    codes = np.repeat([0, 1, 2], DOCUMENTS)
    d, lang = (scaled(rng.normal(size=(n, experts)), s) for n, s in ((3, domain), (LANGS, language)))
    both = rng.normal(size=(3, LANGS, experts))
    both = both - both.mean(0) - both.mean(1, keepdims=True) + both.mean((0, 1))
    both *= interaction / np.sqrt((both**2).sum((0, 1)) / (2 * (LANGS - 1)))
    values = d[codes][:, None] + lang[None] + both[codes]
    values = values + document * rng.normal(size=(len(codes), 1, experts))
    return values + noise * rng.normal(size=values.shape), np.array(["x", "y", "z"])[codes]


def scaled(values, std):
    centred = values - values.mean(0)
    return centred / centred.std(0, ddof=1) * std


def test_components_are_the_planted_ones():
    sizes = {"domain": 0.5, "language": 0.4, "interaction": 0.3, "document": 0.2}
    values, domain = planted(**sizes, noise=0.1, experts=400)
    found = crossed_components(values, np.unique(domain, return_inverse=True)[1])
    for name, size in sizes.items():
        assert getattr(found, name).mean() == pytest.approx(size**2, rel=0.05), name
    assert found.residual.mean() == pytest.approx(0.01, rel=0.05)


def test_documents_alone_make_no_domain_and_no_language():
    values, domain = planted(document=0.5, noise=0.3, experts=400)
    found = crossed_components(values, np.unique(domain, return_inverse=True)[1])
    raw = 0.25 / DOCUMENTS
    for name in ("domain", "language", "interaction"):
        assert abs(getattr(found, name).mean()) < raw / 5, name


@pytest.mark.parametrize(("effect", "p"), [("domain", "p_domain"), ("language", "p_language")])
def test_a_planted_effect_is_found_and_not_taken_for_the_other(effect, p):
    values, domain = planted(**{effect: 0.1}, document=0.1)
    found = decompose(values, domain)
    other = {"p_domain": "p_language", "p_language": "p_domain"}[p]
    assert getattr(found, p) < 0.01
    assert getattr(found, other) > 0.05


def test_p_values_by_layer():
    values = np.stack([planted(domain=0.1)[0], planted(language=0.1)[0]], 2)
    found = decompose(values, planted()[1])
    assert found.p_domain.shape == (2,)
    assert found.p_domain[0] < 0.01 < 0.05 < found.p_domain[1]
    assert found.components.domain.shape == (2, EXPERTS)


def test_unequal_domains_count_equally():
    values, domain = planted(domain=0.5, language=0.4, experts=400)
    kept = np.r_[0:40, 40:46]
    found = crossed_components(values[kept], np.unique(domain[kept], return_inverse=True)[1])
    assert found.domain.mean() == pytest.approx(0.25, rel=0.05)
    assert found.language.mean() == pytest.approx(0.16, rel=0.05)


@pytest.mark.parametrize("kept", [np.s_[:20], np.s_[19:21]])
def test_too_little_is_refused(kept):
    values, domain = planted()
    with pytest.raises(ValueError, match="two domains, two languages and two documents"):
        decompose(values[kept], domain[kept])


def test_holes_are_refused():
    values, domain = planted()
    values[3, 2] = np.nan
    with pytest.raises(ValueError, match="in every language"):
        decompose(values, domain)


def test_languages_with_the_same_domain_experts_agree_and_others_do_not():
    values, domain = planted(domain=0.2, language=0.3, document=0.1)
    rng = np.random.default_rng(5)
    own = scaled(rng.normal(size=(3, EXPERTS)), 0.2)
    values[:, 3] = own[np.unique(domain, return_inverse=True)[1]] + 0.1 * rng.normal(size=values[:, 3].shape)
    found = agree(values, domain)
    assert (found.estimate[[0, 1, 2, 4]] > 0.8).all()
    assert (found.p[[0, 1, 2, 4]] < 0.01).all()
    assert found.estimate[3] < found.null[0]
    assert ((found.low <= found.estimate) & (found.estimate <= found.high)).all()


def test_what_translations_say_is_not_agreement():
    """Parallel documents with strong contents of their own and no domains."""
    values, domain = planted(document=1.0, noise=0.1)
    found = agree(values, domain)
    assert (found.p > 0.05).all()


def test_agreement_needs_four_documents_of_a_domain():
    values, domain = planted()
    with pytest.raises(ValueError, match=r"\[3, 4\] documents"):
        agree(values[17:24], domain[17:24])


def test_jackknife_interval_of_agreement_covers_what_more_documents_give():
    values, domain = planted(domain=0.05, document=0.1, experts=4)
    rng = np.random.default_rng(2)
    codes = np.unique(domain, return_inverse=True)[1]
    means = np.stack([values[codes == c].mean((0, 1)) for c in range(3)])
    estimates, covers = [], []
    for _ in range(20):
        again = means[codes][:, None] + 0.1 * rng.normal(size=values.shape)
        found = Agreement(n_perm=1)(again, domain)
        estimates.append(found.estimate[1])
        covers.append((found.low[1], found.high[1]))
    low, high = np.array(covers).T
    assert ((low < np.median(estimates)) & (np.median(estimates) < high)).sum() >= 14
    assert np.mean(high - low) < 8 * np.std(estimates)
