"""What users do with what they see: utility, examination, click, purchase (the truth of the simulation).

For user u, item i, domain d and a need (wanted leaf, brand, attribute; see `simulation.traffic`), with z the item's
relative price, beta the user's price sensitivity, and c = 1.4 in a promotion, 1 otherwise:

    relevance(i)   = m + [m > 0] (0.5 [wanted brand] + 0.4 [wanted attribute]),  m = 1 same leaf, 0.4 same mid, else 0
    interest(u, i) = sum_k w_uk (1 if leaf(i) is interest k, 0.3 if only its mid is)
    taste(u, i)    = <style_u, embedding_i> / its standard deviation
    U_d(u, i)      = bias + relevance + interest + taste + quality + appeal - c beta z + [promotion] bonus  (weighted)
    P(click | examined) = sigmoid(U_d)          P(examined at position p) = share_d p^(-theta_d,device)
    P(click at p)  = P(examined at p) P(click | examined)                        (position-based model)
    P(buy | click) = sigmoid(U_purchase)

The weights differ by domain: search is about relevance, taste and price; a click in the feed costs little, so appeal
and interest count for more and price for less; ads are avoided. Purchases ignore appeal: an eye-catcher sells no
better. So clicks of one domain inform another, but are not interchangeable.
"""

from dataclasses import dataclass

import numpy as np

from simulation.population import Tastes
from simulation.world import World


@dataclass(frozen=True)
class Weights:
    """Coefficients of one utility."""

    bias: float
    relevance: float
    interest: float
    taste: float
    price: float
    quality: float
    appeal: float
    promotion: float


CLICK_WEIGHTS = (  # search, recommendation, ads
    Weights(-4.2, 1.3, 0.6, 0.8, 0.7, 0.4, 0.2, 0.2),
    Weights(-3.2, 0.9, 1.6, 0.6, 0.2, 0.2, 0.8, 0.1),
    Weights(-3.9, 0.8, 1.2, 0.5, 0.4, 0.1, 0.7, 0.4),
)
PURCHASE_WEIGHTS = Weights(-4.6, 0.9, 0.5, 0.5, 0.8, 0.6, 0.0, 0.3)
EXAMINED_SHARE = np.array([1.0, 0.9, 0.7])  # by domain
EXAMINATION_DECAY = np.array([[0.6, 0.4, 0.5], [0.2, 0.15, 0.2], [0.35, 0.25, 0.3]])  # theta by (domain, device)
PROMOTION_PRICE = 1.4


@dataclass(frozen=True)
class Needs:
    """What users are after, (N,) each; -1 where nothing in particular is wanted."""

    leaf: np.ndarray
    brand: np.ndarray
    attribute: np.ndarray

    def take(self, rows: np.ndarray) -> "Needs":
        """Some rows; a negative row stands for no need at all."""

        def pick(values: np.ndarray) -> np.ndarray:
            return np.where(rows >= 0, values[rows], -1) if len(values) else np.full(len(rows), -1)

        return Needs(pick(self.leaf), pick(self.brand), pick(self.attribute))


@dataclass(frozen=True)
class Signals:
    """What the utilities are made of, (N, n) each."""

    relevance: np.ndarray
    interest: np.ndarray
    taste: np.ndarray
    price: np.ndarray  # beta_u z_i, times 1.4 in a promotion
    quality: np.ndarray
    appeal: np.ndarray
    promotion: np.ndarray


def signals(
    world: World, tastes: Tastes, users: np.ndarray, needs: Needs, promotion: np.ndarray, items: np.ndarray
) -> Signals:
    """Signals of items (N, n) for users, needs and promotion flags (N,); entries of a negative item mean nothing."""
    catalogue = world.catalogue
    leaf = catalogue.leaf[items]  # (N, n)
    mid = catalogue.mid_of(leaf)
    wanted = needs.leaf[:, None]
    match = np.where(leaf == wanted, 1.0, np.where((mid == catalogue.mid_of(wanted)) & (wanted >= 0), 0.4, 0.0))
    brand = (catalogue.brand[items] == needs.brand[:, None]) & (needs.brand[:, None] >= 0)
    attribute = has_attribute(catalogue.attributes[items], needs.attribute[:, None])
    interest = np.zeros(items.shape)
    for k in range(tastes.interests.shape[1]):
        favourite = tastes.interests[users, k][:, None]
        near = np.where(leaf == favourite, 1.0, np.where(mid == catalogue.mid_of(favourite), 0.3, 0.0))
        interest += tastes.weights[users, k][:, None] * near
    style = tastes.style[users].astype(np.float32)
    affinity = np.einsum("nd,nmd->nm", style, catalogue.embedding[items], optimize=True)
    sensitivity = world.population.price_sensitivity[users] * np.where(promotion, PROMOTION_PRICE, 1.0)
    return Signals(
        relevance=match + (match > 0) * (0.5 * brand + 0.4 * attribute),
        interest=interest,
        taste=affinity / world.taste_scale,
        price=sensitivity[:, None] * catalogue.relative_price[items],
        quality=catalogue.quality[items],
        appeal=catalogue.appeal[items],
        promotion=np.broadcast_to(promotion[:, None], items.shape),
    )


def has_attribute(attributes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether one of an item's attributes (…, 2) is the wanted one (…); nothing matches a negative wish."""
    return ((attributes[..., 0] == wanted) | (attributes[..., 1] == wanted)) & (wanted >= 0)


def utility(weights: Weights, s: Signals) -> np.ndarray:
    """U of the module's equations, (N, n)."""
    return (
        weights.bias
        + weights.relevance * s.relevance
        + weights.interest * s.interest
        + weights.taste * s.taste
        - weights.price * s.price
        + weights.quality * s.quality
        + weights.appeal * s.appeal
        + weights.promotion * s.promotion
    )


def attraction(domain: int, s: Signals) -> np.ndarray:
    """P(click | examined), (N, n)."""
    return sigmoid(utility(CLICK_WEIGHTS[domain], s))


def purchase(s: Signals) -> np.ndarray:
    """P(buy | click), (N, n)."""
    return sigmoid(utility(PURCHASE_WEIGHTS, s))


def examination(domain: int, device: np.ndarray, positions: int) -> np.ndarray:
    """P(examined) of positions 1 … n for devices (N,), shape (N, n)."""
    theta = EXAMINATION_DECAY[domain][device][:, None]
    return EXAMINED_SHARE[domain] * np.arange(1, positions + 1) ** -theta


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function."""
    return 1.0 / (1.0 + np.exp(-x))
