"""Heads over domains and tasks by name."""

from models.heads.base import Head
from models.heads.hmoe import HMoE
from models.heads.mmoe import MMoE
from models.heads.pepnet import PEPNet
from models.heads.ple import PLE
from models.heads.shared_bottom import SharedBottom
from models.heads.single import SingleHead
from models.heads.star import STAR

__all__ = ["HEADS", "PLE", "STAR", "HMoE", "Head", "MMoE", "PEPNet", "SharedBottom", "SingleHead"]

HEADS: dict[str, type[Head]] = {
    "single": SingleHead,
    "shared_bottom": SharedBottom,
    "mmoe": MMoE,
    "ple": PLE,
    "star": STAR,
    "hmoe": HMoE,
    "pepnet": PEPNet,
}
