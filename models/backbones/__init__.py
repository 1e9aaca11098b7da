"""Backbones of encode-then-interact models by name."""

from models.backbones.autoint import AutoInt
from models.backbones.base import Backbone
from models.backbones.dcnv2 import DCNv2
from models.backbones.hiformer import HiFormer
from models.backbones.mlp import MLPBackbone
from models.backbones.rankmixer import RankMixer
from models.backbones.wukong import Wukong

__all__ = ["BACKBONES", "AutoInt", "Backbone", "DCNv2", "HiFormer", "MLPBackbone", "RankMixer", "Wukong"]

BACKBONES: dict[str, type[Backbone]] = {
    "mlp": MLPBackbone,
    "dcnv2": DCNv2,
    "autoint": AutoInt,
    "hiformer": HiFormer,
    "wukong": Wukong,
    "rankmixer": RankMixer,
}
